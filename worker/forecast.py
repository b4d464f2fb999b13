"""The least time that a job can take on this device, so that one that can't make it ends early.

An estimate that is too long would fault jobs that could be served, so these are lower bounds: the
fastest of the jobs before, and the fastest step of the job at work.
"""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable

from hordelib.families import Family
from hordelib.params import GenerationParams

REMEMBERED = 20  # jobs of a family


def pixelsteps(params: GenerationParams) -> int:
    """The size of a job: pixels times sampler steps, of all its images."""
    return params.width * params.height * params.steps * params.images


class Forecast:
    """Learns from served jobs how fast this device is with each family of models."""

    def __init__(self) -> None:
        self._served: dict[Family, deque[tuple[int, float]]] = defaultdict(
            lambda: deque(maxlen=REMEMBERED)
        )

    def learn(self, params: GenerationParams, family: Family, seconds: float) -> None:
        """A job took so long, its model's loading aside."""
        if not params.return_control_map:  # which samples nothing
            self._served[family].append((pixelsteps(params), seconds))

    def least_seconds(self, params: GenerationParams, family: Family) -> float:
        """What the job takes at least, by each job that is remembered; 0 where there is none.

        A part of each job's time is the same for small and large ones. So a larger job's pace
        holds for a smaller one, and of a smaller job only its plain time counts.
        """
        size = pixelsteps(params)
        bounds = (seconds * min(1.0, size / other) for other, seconds in self._served[family])
        return min(bounds, default=0.0)


class Progress:
    """One job at work: whether its remaining steps can be done in time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._last = clock()
        self._fastest = float("inf")

    def seconds_left(self, done: int, total: int) -> float:
        """At the fastest step seen, called after each; 0 before the second one."""
        now = self._clock()
        if done > 1:
            self._fastest = min(self._fastest, now - self._last)
        self._last = now
        return (total - done) * self._fastest if done > 1 else 0.0
