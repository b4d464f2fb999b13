from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

from torch import Tensor

class SchedulerHandler(NamedTuple):
    handler: Callable[..., Tensor]
    use_ms: bool = ...

SCHEDULER_HANDLERS: dict[str, SchedulerHandler]

def calculate_sigmas(model_sampling: object, scheduler_name: str, steps: int) -> Tensor: ...
def kl_optimal_scheduler(n: int, sigma_min: float, sigma_max: float) -> Tensor: ...

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
