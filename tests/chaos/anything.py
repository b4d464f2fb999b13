"""Orders of everything that the horde hands out for Stable Diffusion 1 at gate 18, at random."""

from __future__ import annotations

import base64
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar, get_args

from tests.chaos.gallery import PROMPTS, SIDE
from tests.chaos.orders import Order
from tests.support.sandbox_client import MODEL, picture
from worker.sandbox.rules.sampling import LIMITS, SOLVER_TYPES
from worker.sandbox.wire import Sampler, Scheduler

T = TypeVar("T")
Params = Mapping[str, object]
SAMPLERS: Sequence[str] = get_args(Sampler)
SCHEDULES: Sequence[str] = get_args(Scheduler)
MOST_STEPS, MOST_IMAGES = 3, 3
BEYOND_ALL_NOISE = 1000.0  # drawn where an option has no upper limit
REFUSED = ("dpmpp_3m_sde", "normal")  # together
SIDES = (SIDE, 2 * SIDE)
SWITCH = (True, False)


@dataclass
class Anything:
    """Each sampler and each schedule comes once before any comes again."""

    draw: random.Random
    _samplers: Iterator[str] = field(init=False)
    _schedules: Iterator[str] = field(init=False)

    def __post_init__(self) -> None:
        self._samplers = _in_turns(self.draw, SAMPLERS)
        self._schedules = _in_turns(self.draw, SCHEDULES)

    def order(self) -> Order:
        draw, sampler = self.draw, next(self._samplers)
        strength = {"denoising_strength": draw.choice((0.01, 0.6, 1.0))}
        source = {"source_image": base64.b64encode(picture(size=(SIDE, SIDE))).decode()}
        return Order(
            prompt=f"{draw.choice(PROMPTS)}{draw.choice(('', ' ### blurry'))}",
            models=(MODEL,),
            images=draw.randint(1, MOST_IMAGES),
            params={
                "width": draw.choice(SIDES),
                "height": draw.choice(SIDES),
                "steps": draw.randint(1, MOST_STEPS),
                "cfg_scale": draw.choice((1.0, 1.5, 7.0)),
                "sampler_name": sampler,
                "seed": str(draw.getrandbits(32)),
                "tiling": draw.choice(SWITCH),
                "hires_fix": draw.choice(SWITCH),
                "clip_skip": draw.randint(1, 3),
                **(strength if draw.choice(SWITCH) else {}),
                **self._schedule(sampler),
                **_options(draw, sampler),
            },
            more=source if draw.random() < 0.3 else {},
        )

    def _schedule(self, sampler: str) -> Params:
        """`karras` alone, as older clients ask, or a schedule that wins over it."""
        if self.draw.random() < 0.2:
            return {"karras": sampler == REFUSED[0] or self.draw.choice(SWITCH)}
        schedule = next(self._schedules)
        if (sampler, schedule) == REFUSED:
            schedule = next(self._schedules)
        return {"scheduler": schedule, "karras": self.draw.choice(SWITCH)}


def _in_turns(draw: random.Random, values: Sequence[T]) -> Iterator[T]:
    while True:
        yield from draw.sample(values, len(values))


def _options(draw: random.Random, sampler: str) -> Params:
    """Some of those that the horde accepts with the sampler: at an edge, or between."""
    drawn: dict[str, object] = {}
    for name, (low, high) in LIMITS.get(sampler, {}).items():
        most = BEYOND_ALL_NOISE if math.isinf(high) else high
        number = draw.choice((low, most, draw.uniform(low, most), 0.5))
        drawn[f"sampler_{name}"] = number if name != "order" else draw.randint(int(low), int(most))
    if sampler in SOLVER_TYPES:
        drawn["sampler_solver_type"] = draw.choice(sorted(SOLVER_TYPES[sampler]))
    return {key: value for key, value in drawn.items() if draw.choice(SWITCH)}
