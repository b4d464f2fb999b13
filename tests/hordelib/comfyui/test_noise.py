"""Noise per image is exactly what ComfyUI draws for that image alone."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch

from hordelib import Engine
from hordelib.job.samplers import STEP_NOISE, StepNoise

SEEDS = (5, 6, (1 << 64) - 1, 7)
LATENT = torch.zeros(4, 4, 8, 8)
SIGMAS = torch.tensor([14.6, 7.0, 3.0, 1.0, 0.03, 0.0])


@pytest.mark.usefixtures("engine")
def test_first_noise_is_comfyuis_of_each_seed():
    import comfy.sample

    from hordelib.comfyui.nodes.noise import first_noise

    noise = first_noise(LATENT, SEEDS)
    for i, seed in enumerate(SEEDS):
        assert torch.equal(noise[i : i + 1], comfy.sample.prepare_noise(LATENT[:1], seed))


def test_drawing_noise_leaves_the_programs_own_random_numbers_alone(engine: Engine):
    engine.start()
    from hordelib.comfyui.nodes.noise import first_noise

    before = torch.get_rng_state()
    first_noise(LATENT, SEEDS)
    assert torch.equal(before, torch.get_rng_state())


DRAWN = (StepNoise.gaussian, StepNoise.brownian)
STOCHASTIC = sorted({name for name, kind in STEP_NOISE.items() if kind in DRAWN})


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("comfy_name", STOCHASTIC)
def test_step_noise_is_comfyuis_of_each_seed(comfy_name: str):
    together = _drawn(comfy_name, LATENT, SEEDS)
    for i, seed in enumerate(SEEDS):
        for step, noise in enumerate(_comfyuis(comfy_name, LATENT[:1], seed)):
            assert torch.equal(together[step][i : i + 1], noise)


def _drawn(comfy_name: str, x: torch.Tensor, seeds: tuple[int, ...]) -> list[torch.Tensor]:
    """What our sampler hands to ComfyUI's sampler function, for each pair of noise levels."""
    import comfy.samplers

    from hordelib.comfyui.nodes import noise

    caught: list[Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = []
    make = noise.NOISE_SAMPLERS[STEP_NOISE[comfy_name]]
    caught.append(make(x, SIGMAS, seeds))
    assert isinstance(noise.seeded_sampler(comfy_name, seeds), comfy.samplers.KSAMPLER)
    return [caught[0](a, b) for a, b in _pairs()]


def _comfyuis(comfy_name: str, x: torch.Tensor, seed: int) -> list[torch.Tensor]:
    """What ComfyUI draws for one image, as its sampler functions do without our noise sampler."""
    from comfy.k_diffusion.sampling import BrownianTreeNoiseSampler, default_noise_sampler

    from hordelib.comfyui.versions import step_seed

    if STEP_NOISE[comfy_name] is StepNoise.brownian:
        low, high = SIGMAS[SIGMAS > 0].min(), SIGMAS.max()
        draw = BrownianTreeNoiseSampler(x, low, high, seed=seed, cpu=True)
    else:
        # A newer ComfyUI adds 1 on the CPU, and can't to the largest seed: ours goes on with 0.
        draw = default_noise_sampler(x, seed=seed if step_seed(seed, "cpu") else -1)
    return [draw(a, b) for a, b in _pairs()]


def _pairs() -> list[tuple[torch.Tensor, torch.Tensor]]:
    return list(pairwise(SIGMAS[:-1]))
