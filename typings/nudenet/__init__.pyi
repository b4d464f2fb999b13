from typing import Any

class NudeDetector:
    def detect(self, image_path: Any) -> list[dict[str, Any]]: ...
