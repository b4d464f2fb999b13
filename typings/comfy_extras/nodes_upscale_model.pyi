from typing import Protocol

from torch import Tensor, device, nn

class _Result:
    args: tuple[Tensor, ...]

class _UpscaleModel(Protocol):
    @property
    def model(self) -> nn.Module: ...
    @property
    def scale(self) -> int: ...
    def to(self, device: device | str) -> None: ...
    def __call__(self, tile: Tensor) -> Tensor: ...

class ImageUpscaleWithModel:
    @classmethod
    def execute(cls, upscale_model: _UpscaleModel, image: Tensor) -> _Result: ...
