"""What jobs were thought to take of memory, and what they took, by model and size.

Beside the weights: sampling and decoding. The engine learns from its jobs, so that what is
predicted of the later ones is nearer.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from hordelib import Engine, GenerationParams, demo_checkpoint
from hordelib.model import Model
from hordelib.samplers import SAMPLERS

MIB = 1 << 20
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
        made = engine.generate(params, model)
        yield Reading(
            model.name,
            model.family.name,
            side,
            images,
            made.predicted_bytes,
            made.measured_bytes,
        )


def main(arguments: list[str]) -> int:
    options = _parser().parse_args(arguments)
    paths = options.model or [demo_checkpoint(Path("models"))]
    models = [Model.of_checkpoint(path) for path in paths]
    print(f"{'model':30}{'size':>12}{'images':>8}{'predicted':>12}{'measured':>12}{'ratio':>8}")
    readings: list[Reading] = []
    with Engine() as engine:
        for reading in measure(engine, models, QUICK if options.quick else SIZES):
            readings.append(reading)
            print(_row(reading), flush=True)
    if options.json:
        rows = [{**asdict(reading), "ratio": round(reading.ratio, 3)} for reading in readings]
        options.json.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")
    return 0


def _row(reading: Reading) -> str:
    size = f"{reading.side}x{reading.side}"
    predicted, measured = (
        f"{value / MIB:.0f} MiB" for value in (reading.predicted_bytes, reading.measured_bytes)
    )
    return (
        f"{reading.model[:29]:30}{size:>12}{reading.images:>8}"
        f"{predicted:>12}{measured:>12}{reading.ratio:>8.2f}"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benchmark memory", description=__doc__)
    parser.add_argument("model", nargs="*", type=Path, help="model files (default: the demo model)")
    parser.add_argument("--quick", action="store_true", help="small pictures only")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the readings there, too")
    return parser
