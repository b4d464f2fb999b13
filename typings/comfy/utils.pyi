from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.nn import Module

def repeat_to_batch_size(tensor: Tensor, batch_size: int, dim: int = 0) -> Tensor: ...

load_torch_file: Callable[..., Any]

def get_tiled_scale_steps(
    width: int, height: int, tile_x: int, tile_y: int, overlap: int
) -> int: ...
def common_upscale(
    samples: Tensor, width: int, height: int, upscale_method: str, crop: str
) -> Tensor: ...
def set_attr_param(obj: Module, attr: str, value: Tensor) -> object: ...
