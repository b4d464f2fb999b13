from typing import Any

from PIL.Image import Image

class NSFWResult:
    is_nsfw: bool
    is_csam: bool
    is_anime: bool
    all_predicate_scores: dict[str, float]
    nsfw_similarity_results: dict[str, float]

class NSFWChecker:
    def __init__(self, interrogator: Any, deep_danbooru_model: Any | None) -> None: ...
    def check_for_nsfw(self, image: Image, prompt: str | None = None) -> NSFWResult | None: ...
