"""The demo model on a card of 4 GiB that computes in the card's types: which pictures are equal."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from hordelib import GenerationParams
from hordelib.demo_model import ensure_checkpoint, ensure_lora
from hordelib.job.images import Picture
from hordelib.job.params import Lora
from hordelib.job.samplers import SAMPLERS
from tests.hordelib.test_engine import SMALL
from tests.simcard.bench import Bench, tell
from tests.simcard.card import MIB, Card
from tests.simcard.sampler_waits import waits_in_steps
from tests.simcard.type_choices import refused, type_choices
from tests.support.cuda_moves import halve
from tests.support.looks import apart, difference

SHORT = replace(SMALL, steps=3)
NOISE = 1e-6  # of a sum in 32 bits, in another order of summing, as another kernel has it


def picture(bench: Bench, params: GenerationParams, models: Path, i: int = 0) -> Picture:
    bench.make(params, ensure_checkpoint(models))
    assert bench.last is not None
    return bench.last.images[i]


def half_unloaded(bench: Bench, models: Path) -> Mapping[str, Any]:
    before = picture(bench, SHORT, models)
    moved = bench.engine._thread.submit(halve, bench.engine).result()
    return {"parts": moved, "difference": difference(before, picture(bench, SHORT, models))}


def loras_in_turn(bench: Bench, models: Path) -> Mapping[str, Any]:
    """None, one, another strength of it, none and one: MiB copied, and what is not as before."""
    lora = Lora("demo", ensure_lora(models))
    none = replace(SHORT, seed=21)  # no result is kept of it
    weak = replace(none, loras=(replace(lora, model=0.5, clip=0.5),))
    turns = {"none": none, "strong": replace(none, loras=(lora,)), "weak": weak}
    made: dict[str, Picture] = {}
    copied: list[float] = []
    differences: list[int] = []
    for name in ("none", "strong", "weak", "none", "strong"):
        before = bench.card.copied_bytes
        drawn = picture(bench, turns[name], models)
        copied.append((bench.card.copied_bytes - before) / MIB)
        differences.append(difference(drawn, made.setdefault(name, drawn)))
    bench.evict()
    differences.append(difference(picture(bench, turns["weak"], models), made["weak"]))
    others = [difference(made["none"], made[name]) for name in ("strong", "weak")]
    return {"copied": copied, "differences": differences, "others": others}


def batch_against_single(bench: Bench, models: Path, sampler: str) -> Mapping[str, Any]:
    """The second picture of a batch, and the same one alone, with other roundings."""
    job = replace(SHORT, sampler=SAMPLERS[sampler])
    together = picture(bench, replace(job, images=2), models, 1)
    bench.card.noise = NOISE
    try:
        alone = picture(bench, replace(job, seed=job.seed + 1), models)
    finally:
        bench.card.noise = 0.0
    return {"most": difference(together, alone), **apart(together, alone)._asdict()}


def main(models: Path) -> None:
    bench = Bench(Card(4096 * MIB, has_numbers=True), models)
    scenarios = {
        each.__name__: partial(each, models=models) for each in (half_unloaded, loras_in_turn)
    }
    for sampler in ("k_euler", "k_euler_a"):
        scenarios[sampler] = partial(batch_against_single, models=models, sampler=sampler)
    tell(
        bench,
        {
            **scenarios,
            "waits_in_steps": waits_in_steps,
            "type_choices": type_choices,
            "refused": refused,
        },
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
