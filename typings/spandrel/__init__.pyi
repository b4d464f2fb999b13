"""What we use of spandrel, typed by us: its own hints leave much open."""

from collections.abc import Iterator, Mapping
from typing import Any, Generic, Self, TypeVar

from torch import Tensor, device, dtype, nn

class Architecture:
    id: str
    name: str

class ArchSupport:
    architecture: Architecture

class ArchRegistry:
    def copy(self) -> ArchRegistry: ...
    def add(self, *architectures: ArchSupport, ignore_duplicates: bool = ...) -> object: ...
    def __iter__(self) -> Iterator[ArchSupport]: ...

_Model = TypeVar("_Model", bound=nn.Module, default=nn.Module)

class _Descriptor(Generic[_Model]):
    model: _Model
    architecture: Architecture
    purpose: str
    input_channels: int
    output_channels: int
    scale: int
    supports_half: bool
    supports_bfloat16: bool
    dtype: dtype
    def to(self, device: device | str) -> Self: ...
    def eval(self) -> Self: ...
    def bfloat16(self) -> Self: ...

class ImageModelDescriptor(_Descriptor[_Model]):
    def __call__(self, image: Tensor) -> Tensor: ...

class MaskedImageModelDescriptor(_Descriptor[_Model]): ...

class ModelLoader:
    def __init__(self, *, registry: ArchRegistry = ...) -> None: ...
    def load_from_state_dict(
        self, state_dict: Mapping[str, Any]
    ) -> ImageModelDescriptor | MaskedImageModelDescriptor: ...

MAIN_REGISTRY: ArchRegistry
