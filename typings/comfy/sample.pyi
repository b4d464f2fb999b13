from typing import Any

from comfy.samplers import KSAMPLER
from torch import Generator, Tensor

def prepare_noise_inner(latent_image: Tensor, generator: Generator) -> Tensor: ...
def prepare_noise(latent_image: Tensor, seed: int) -> Tensor: ...
def fix_empty_latent_channels(model: Any, latent_image: Tensor) -> Tensor: ...
def sample_custom(
    model: Any,
    noise: Tensor,
    cfg: float,
    sampler: KSAMPLER,
    sigmas: Tensor,
    positive: Any,
    negative: Any,
    latent_image: Tensor,
    noise_mask: Tensor | None = ...,
    callback: Any = ...,
    disable_pbar: bool = ...,
    seed: int | None = ...,
) -> Tensor: ...
