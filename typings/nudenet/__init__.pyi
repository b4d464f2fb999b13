from typing import Any

from onnxruntime import InferenceSession

class NudeDetector:
    onnx_session: InferenceSession
    def detect(self, image_path: Any) -> list[dict[str, Any]]: ...
