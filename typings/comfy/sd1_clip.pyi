from collections.abc import Callable
from typing import Any

from torch import Tensor

class SD1Tokenizer: ...

class SDClipModel:
    layer: str | list[int]
    layer_idx: int | None
    transformer: object
    enable_attention_masks: bool
    return_projected_pooled: bool
    encode: Callable[[list[list[Any]]], tuple[Tensor, Tensor]]
    def __call__(self, tokens: list[list[Any]]) -> tuple[Tensor, Tensor]: ...
