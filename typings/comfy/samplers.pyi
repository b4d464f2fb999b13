from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from torch import Tensor

class KSAMPLER:
    sampler_function: Callable[..., Tensor]
    extra_options: Mapping[str, Any]
    def __init__(
        self,
        sampler_function: Callable[..., Tensor],
        extra_options: Mapping[str, Any] = ...,
    ) -> None: ...

class KSampler:
    SAMPLERS: ClassVar[list[str]]
    SCHEDULERS: ClassVar[list[str]]
    sigmas: Tensor
    def __init__(
        self,
        model: Any,
        steps: int,
        device: Any,
        sampler: str,
        scheduler: str,
        denoise: float,
        model_options: Any,
    ) -> None: ...

def sampler_object(name: str) -> KSAMPLER: ...
