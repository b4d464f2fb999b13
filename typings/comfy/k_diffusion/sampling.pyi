from collections.abc import Callable, Sequence

from torch import Tensor

def default_noise_sampler(x: Tensor, seed: int) -> Callable[[Tensor, Tensor], Tensor]: ...

class BrownianTreeNoiseSampler:
    def __init__(
        self, x: Tensor, sigma_min: Tensor, sigma_max: Tensor, seed: int | Sequence[int], cpu: bool
    ) -> None: ...
    def __call__(self, sigma: Tensor, sigma_next: Tensor) -> Tensor: ...
