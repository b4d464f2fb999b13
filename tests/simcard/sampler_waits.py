"""Where samplers have the host wait for the card between two of their steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch

from hordelib.job.samplers import SAMPLERS
from tests.hordelib.comfyui.test_samplers import LEVELS, SHAPE
from tests.simcard.bench import Bench
from tests.support.tiny_denoiser import TinyDenoiser

SEEDS = (5, 6)


def waits_in_steps(bench: Bench) -> Mapping[str, Any]:
    """Of each sampler that does."""
    return bench.engine._thread.submit(_all_waits, bench).result()


def _all_waits(bench: Bench) -> Mapping[str, Any]:
    found = {name: _waits(bench, row.comfy_name) for name, row in SAMPLERS.items()}
    return {name: waits for name, waits in found.items() if waits}


@torch.inference_mode()
def _waits(bench: Bench, comfy_name: str) -> Mapping[str, int]:
    from hordelib.comfyui.nodes.noise import first_noise, seeded_sampler

    seen: list[Counter[str]] = []

    def look(*_: object) -> None:
        seen.append(bench.card.syncs.copy())

    model: Any = TinyDenoiser()
    model.pattern = model.pattern.to("cuda")
    model.model_sampling.to("cuda")
    noise = first_noise(torch.zeros(len(SEEDS), *SHAPE), SEEDS).to("cuda")
    levels: Any = torch.tensor(LEVELS).to("cuda")
    solver = seeded_sampler(comfy_name, SEEDS)
    extra: dict[str, Any] = {"model_options": {}, "seed": 5}
    solver.sampler_function(
        model, noise * levels[0], levels, extra_args=extra, callback=look, disable=True,
        **solver.extra_options,
    )  # fmt: skip
    return seen[-1] - seen[0]
