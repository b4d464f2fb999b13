"""The least time that a job at work still takes, so that one that can't make it ends early.

An estimate that is too long would fault jobs that could be served, so this is a lower bound, as
that of a job that has not begun (SecondsPredictor.least_seconds).
"""

from __future__ import annotations

import time
from collections.abc import Callable


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
