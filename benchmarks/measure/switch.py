"""What it costs to change from one model to another, against a plain copy of the weights.

Two copies of each model take turns in memory that has room for one of them to compute with. What a
job takes longer than one after a job of the same model is the switch: its files are mapped already,
so that it should cost no more than to bring the UNet's weights to where they are computed with.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.measure.model_files import add_models, models_of
from benchmarks.results.frame import Bench
from hordelib import Engine, GenerationParams
from hordelib.files.headers import read_shapes
from hordelib.files.model import Model
from hordelib.job.samplers import SAMPLERS
from hordelib.memory.readings import anonymous_bytes

ROUNDS, QUICK_ROUNDS = 10, 4
UNET = "model.diffusion_model."
JOB = GenerationParams(
    prompt="a red circle", width=64, height=64, steps=1, sampler=SAMPLERS["k_euler"]
)


@dataclass(frozen=True, slots=True)
class Switch:
    """One model; all are medians. `ratio` is the switch against the plain copy."""

    model: str
    unet_bytes: int  # as the file has them
    same_model_seconds: float
    other_model_seconds: float
    copy_seconds: float

    @property
    def switch_seconds(self) -> float:
        return max(0.0, self.other_model_seconds - self.same_model_seconds)

    @property
    def ratio(self) -> float:
        return self.switch_seconds / self.copy_seconds


def measure(model: Model, rounds: int) -> Switch:
    values = _unet_values(model.main)
    with TemporaryDirectory(dir=model.main.parent) as folder:
        other = Path(folder) / model.main.name
        os.link(model.main, other)
        pair = (model, replace(model, files={**model.files, _title(model): other}))
        same_seconds, other_seconds = _job_seconds(pair, values, rounds)
    copy_seconds = _median_seconds(_copying(values), rounds)
    return Switch(model.name, values * 2, same_seconds, other_seconds, copy_seconds)


def _job_seconds(pair: tuple[Model, Model], values: int, rounds: int) -> tuple[float, float]:
    """Of jobs after one of the same model, and after one of the other model.

    Each has a prompt of its own, so that both kinds have it to encode.
    """
    same: list[float] = []
    other: list[float] = []
    limit_bytes = 1 << 60
    free_bytes = lambda: limit_bytes - anonymous_bytes()  # noqa: E731
    with Engine(ram_reserve_bytes=0, free_ram_bytes=free_bytes) as engine:
        for model in pair:
            engine.generate(JOB, model)
        limit_bytes = anonymous_bytes() - values * 2  # half of what one of the two UNets takes
        for number in range(rounds):
            model = pair[number % 2]
            for seconds in (other, same):
                turn = 2 * number + (seconds is same)
                job = replace(JOB, prompt=f"{JOB.prompt}, number {turn}", seed=turn)
                seconds.append(_seconds(lambda: engine.generate(job, model)))  # noqa: B023
    return median(same), median(other)


def _copying(values: int) -> Callable[[], object]:
    """On the CPU weights are computed with in 32 bits; onto a card they go as they are."""
    import torch

    weights = torch.zeros(values, dtype=torch.float16)
    if torch.cuda.is_available():
        return lambda: (weights.to("cuda"), torch.cuda.synchronize())
    return weights.float


def _median_seconds(work: Callable[[], object], rounds: int) -> float:
    return median(_seconds(work) for _ in range(rounds))


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _unet_values(path: Path) -> int:
    shapes = read_shapes(path)
    unet = [shape for name, shape in shapes.items() if name.startswith(UNET)]
    return sum(prod(shape) for shape in unet or shapes.values())


def _title(model: Model) -> str:
    return model.family.loaders[0].title


def _rows(options: argparse.Namespace) -> Iterator[Switch]:
    for model in models_of(options.model):
        yield measure(model, QUICK_ROUNDS if options.quick else ROUNDS)


BENCH = Bench(
    name="switch",
    help="what it costs to change from one model to another",
    add_arguments=add_models,
    rows=_rows,
    count=lambda options: max(1, len(options.model)),
)
