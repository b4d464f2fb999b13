"""What jobs were thought to take of memory, and what they took, by model and size.

Beside the weights: sampling and decoding. The engine learns from its jobs, so that what is
predicted of the later ones is nearer.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from benchmarks.measure.model_files import add_models, models_of
from benchmarks.results.frame import Bench
from hordelib import Engine, GenerationParams
from hordelib.files.model import Model
from hordelib.job.samplers import SAMPLERS
from hordelib.memory.heap import trim_heap

SIZES = ((64, 1), (128, 4), (256, 1), (256, 4), (512, 1), (512, 2), (768, 1), (1024, 1))
QUICK = SIZES[:4]


@dataclass(frozen=True, slots=True)
class Reading:
    """One job. `ratio` is measured to predicted: over 1, memory could run out."""

    model: str
    family: str
    side: int
    images: int
    predicted_bytes: int
    measured_bytes: int

    @property
    def ratio(self) -> float:
        return self.measured_bytes / max(1, self.predicted_bytes)


def measure(
    engine: Engine, models: Iterable[Model], sizes: Iterable[tuple[int, int]]
) -> Iterator[Reading]:
    """Run one job of a step for each model and size, the small ones first."""
    cases = [(model, side, images) for model in models for side, images in sizes]
    for seed, (model, side, images) in enumerate(cases):
        params = GenerationParams(
            prompt=f"number {seed}",  # never one whose result ComfyUI still has
            negative_prompt="plain",
            width=side,
            height=side,
            images=images,
            seed=seed,
            steps=1,
            sampler=SAMPLERS["k_euler"],
        )
        trim_heap()  # or it would take first what earlier jobs have left
        made = engine.generate(params, model)
        yield Reading(
            model.name,
            model.family.name,
            side,
            images,
            made.predicted_bytes,
            made.measured_bytes,
        )


def _rows(options: argparse.Namespace) -> Iterator[Reading]:
    with Engine() as engine:
        yield from measure(engine, models_of(options.model), _sizes(options))


def _sizes(options: argparse.Namespace) -> tuple[tuple[int, int], ...]:
    return QUICK if options.quick else SIZES


BENCH = Bench(
    name="memory",
    help="what jobs were thought to take of memory, and what they took",
    add_arguments=add_models,
    rows=_rows,
    count=lambda options: len(_sizes(options)) * max(1, len(options.model)),
)
