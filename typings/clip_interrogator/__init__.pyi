from collections.abc import Callable
from typing import Any

from PIL.Image import Image
from torch import Tensor

class Interrogator:
    config: Any
    device: str
    clip_model: Any
    clip_preprocess: Callable[[Image], Tensor]
    tokenize: Callable[[list[str]], Tensor]
    clip_offloaded: bool
    caption_offloaded: bool
