"""docs/jobs.md has the table of samplers that the code has, and every name that the horde takes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import get_args

from hordelib.job.samplers import ADAPTIVE, SAMPLERS, Choice, Option, Sampler, Scheduler, StepNoise
from worker.sandbox import wire

JOBS = Path(__file__).parents[3] / "docs" / "jobs.md"
NOTHING = "\N{EN DASH}"
NOISE = {
    StepNoise.none: "none",
    StepNoise.churn: "with s_churn",
    StepNoise.gaussian: "Gaussian",
    StepNoise.brownian: "Brownian",
}


def row(sampler: Sampler) -> str:
    options = ", ".join(f"{name} {_limits(option)}" for name, option in sampler.options.items())
    runs = f"{sampler.evaluations}" if sampler != ADAPTIVE else "chosen by itself"
    churns = sampler.step_noise is StepNoise.churn and "s_churn" not in sampler.options
    noise = NOISE[StepNoise.none if churns else sampler.step_noise]
    return f"| {sampler.name} | {runs} | {noise} | {options or NOTHING} |"


def _limits(option: Option) -> str:
    if isinstance(option, Choice):
        other = next(word for word in option.words if word != option.default)
        return f"{option.default} or {other}"
    if math.isinf(option.high):
        return f"from {option.low:g} (no limit)"
    return f"{option.low:g} to {option.high:g} ({option.default:g})"


def test_the_table_of_samplers_is_the_codes():
    written = JOBS.read_text("utf-8").splitlines()
    assert [line for line in written if line.split(" | ")[0][2:] in SAMPLERS] == [
        row(sampler) for sampler in SAMPLERS.values()
    ]


def test_every_sampler_and_schedule_of_the_horde_is_known():
    assert {name.lower() for name in get_args(wire.Sampler)} == SAMPLERS.keys() - {"plms"}
    assert set(get_args(wire.Scheduler)) == set(Scheduler)
