from typing import Any

class NSFWChecker:
    def __init__(self, interrogator: Any, deep_danbooru_model: Any | None) -> None: ...
