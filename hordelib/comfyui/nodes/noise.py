"""Noise with one seed per image, so that a picture does not depend on the batch it was made in.

ComfyUI draws a batch's first noise and its step noise from one generator; here each image has its
own, seeded as ComfyUI seeds a single image. Image i of a batch is then the picture of its seed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import comfy.sample
import comfy.samplers
import torch
from comfy.k_diffusion.sampling import BrownianTreeNoiseSampler
from torch import Tensor
from torch.overrides import TorchFunctionMode

from hordelib.comfyui.nodes.solvers import FUNCTIONS, SamplerFunction
from hordelib.comfyui.versions import step_seed
from hordelib.job.samplers import STEP_NOISE, UNBATCHABLE, StepNoise

# Samplers that compute with their levels as with pictures, in tensors of one device.
LEVELS_ON_DEVICE = frozenset({"uni_pc", "uni_pc_bh2", "sa_solver", "sa_solver_pece"})

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


def seeded_sampler(
    comfy_name: str,
    seeds: Sequence[int],
    options: Mapping[str, Any] | None = None,
    *,
    on_bound: Callable[[int], None] = lambda _: None,
) -> comfy.samplers.KSAMPLER:
    """The sampler of that name with these options, all its noise drawn per image.

    `on_bound(iterations)` tells that dpm_adaptive was stopped.

    ComfyUI's inpaint option is left out: `ddim` would draw the noise under a mask from one seed for
    the whole batch, where every other sampler takes the first noise. Nothing is drawn from the one
    seed that ComfyUI hands to its functions.
    """
    function, noise = _function(comfy_name), STEP_NOISE[comfy_name]
    given = dict(options or {})
    if comfy_name in UNBATCHABLE:
        given["on_bound"] = on_bound

    def sample(
        model: Any, x: Tensor, sigmas: Tensor, *, extra_args: dict[str, Any], **common: Any
    ) -> Tensor:
        if len(sigmas) <= 1:
            return x
        if comfy_name not in LEVELS_ON_DEVICE:
            sigmas = sigmas.cpu()  # they are looked at in each step: the card would be waited for
        if noise in NOISE_SAMPLERS:
            common["noise_sampler"] = NOISE_SAMPLERS[noise](x, sigmas, seeds)
        with _churned(x, seeds) if given.get("s_churn") else nullcontext():
            return function(model, x, sigmas, extra_args={**extra_args, "seed": None}, **common)

    return comfy.samplers.KSAMPLER(sample, given)


def _function(comfy_name: str) -> SamplerFunction:
    if comfy_name in FUNCTIONS:
        return FUNCTIONS[comfy_name]
    return comfy.samplers.sampler_object(comfy_name).sampler_function


def _gaussian(x: Tensor, sigmas: Tensor, seeds: Sequence[int]) -> NoiseSampler:
    """ComfyUI's default_noise_sampler of each image."""
    del sigmas
    draw = _draws(x, [step_seed(seed, x.device.type) for seed in seeds])
    return lambda _sigma, _sigma_next: draw()


def _brownian(x: Tensor, sigmas: Tensor, seeds: Sequence[int]) -> NoiseSampler:
    smallest, largest = sigmas[sigmas > 0].min(), sigmas.max()
    tree = BrownianTreeNoiseSampler(x, smallest, largest, seed=list(seeds), cpu=True)
    return lambda sigma, sigma_next: tree(sigma, sigma_next).to(x.device, non_blocking=True)


NOISE_SAMPLERS: dict[StepNoise, Callable[[Tensor, Tensor, Sequence[int]], NoiseSampler]] = {
    StepNoise.gaussian: _gaussian,
    StepNoise.brownian: _brownian,
}


def _draws(x: Tensor, seeds: Sequence[int]) -> Callable[[], Tensor]:
    """Noise like `x`, image i from a generator of seeds[i] on its device."""
    generators = [torch.Generator(x.device).manual_seed(seed) for seed in seeds]
    shape = (1, *x.shape[1:])

    def draw() -> Tensor:
        return torch.cat(
            [
                torch.randn(shape, dtype=x.dtype, device=x.device, generator=each)
                for each in generators
            ]
        )

    return draw


def _churned(x: Tensor, seeds: Sequence[int]) -> AbstractContextManager[object]:
    """Noise of `s_churn`, which ComfyUI draws from torch's global generator, per image.

    ComfyUI seeds that with the image's seed. On the CPU it has drawn the first noise then, so that
    each generator here draws as much before.
    """
    draw = _draws(x, seeds)
    if x.device.type == "cpu":
        draw()
    return _Redirected(draw, x.shape)


class _Redirected(TorchFunctionMode):
    """Within it, `torch.randn_like` of a batch of this shape is `draw`."""

    def __init__(self, draw: Callable[[], Tensor], shape: torch.Size):
        super().__init__()
        self._draw, self._shape = draw, shape

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        del types
        if func is torch.randn_like and args[0].shape == self._shape:
            return self._draw()
        return func(*args, **(kwargs or {}))
