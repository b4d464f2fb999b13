"""Noise with one seed per image, so that a picture does not depend on the batch it was made in.

ComfyUI draws a batch's first noise and its step noise from one generator; here each image has its
own, seeded as ComfyUI seeds a single image. Image i of a batch is then the picture of its seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import comfy.sample
import comfy.samplers
import torch
from comfy.k_diffusion.sampling import BrownianTreeNoiseSampler, default_noise_sampler
from torch import Tensor

from hordelib.job.samplers import STEP_NOISE, StepNoise

NoiseSampler = Callable[[Tensor, Tensor], Tensor]


def first_noise(latent: Tensor, seeds: Sequence[int]) -> Tensor:
    """Noise shaped like `latent` (B, C, H, W), image i from seeds[i]; CPU, as ComfyUI draws it.

    Equals comfy.sample.prepare_noise of each image alone, and leaves torch's global seed as it is.
    """
    return torch.cat(
        [
            comfy.sample.prepare_noise_inner(latent[i : i + 1], torch.Generator().manual_seed(seed))
            for i, seed in enumerate(seeds)
        ]
    )


def seeded_sampler(comfy_name: str, seeds: Sequence[int]) -> comfy.samplers.KSAMPLER:
    """ComfyUI's sampler of that name, all its noise drawn per image.

    Its inpaint option is left out: `ddim` would draw the noise under a mask from one seed for the
    whole batch, where every other sampler takes the first noise.
    """
    sampler = comfy.samplers.sampler_object(comfy_name)
    make_noise = NOISE_SAMPLERS.get(STEP_NOISE[comfy_name])
    if make_noise is None:
        return comfy.samplers.KSAMPLER(sampler.sampler_function, sampler.extra_options)

    def sample(model: Any, x: Tensor, sigmas: Tensor, **arguments: Any) -> Tensor:
        if len(sigmas) <= 1:
            return x
        noise = make_noise(x, sigmas, seeds)
        return sampler.sampler_function(model, x, sigmas, noise_sampler=noise, **arguments)

    return comfy.samplers.KSAMPLER(sample, sampler.extra_options)


def _gaussian(x: Tensor, sigmas: Tensor, seeds: Sequence[int]) -> NoiseSampler:
    samplers = [default_noise_sampler(x[i : i + 1], seed=seed) for i, seed in enumerate(seeds)]
    return lambda sigma, sigma_next: torch.cat([draw(sigma, sigma_next) for draw in samplers])


def _brownian(x: Tensor, sigmas: Tensor, seeds: Sequence[int]) -> NoiseSampler:
    smallest, largest = sigmas[sigmas > 0].min(), sigmas.max()
    return BrownianTreeNoiseSampler(x, smallest, largest, seed=list(seeds), cpu=True)


NOISE_SAMPLERS: dict[StepNoise, Callable[[Tensor, Tensor, Sequence[int]], NoiseSampler]] = {
    StepNoise.gaussian: _gaussian,
    StepNoise.brownian: _brownian,
}
