"""The least time that a job at work still takes, so that one that can't make it ends early.

An estimate that is too long would fault jobs that could be served, so this is a lower bound, as
that of a job that has not begun (SecondsPredictor.least_seconds).
"""

from __future__ import annotations

import time
from collections.abc import Callable

PACES = 3  # seen before anything is said: the first ones are often slow, and any one by chance


class StepProgress:
    """One job at work: whether its remaining steps can be done in time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._began = self._last = clock()
        self._done = 0  # of the steps under way
        self._left = 0  # of them
        self._paces = 0
        self._fastest = float("inf")

    def seconds_left(self, done: int, total: int) -> float:
        """At the fastest pace seen, called after some of the steps.

        0 the first time of a pass, and while too few paces are known.
        """
        now, before = self._clock(), self._done
        since, self._last = self._last, now
        self._done = done if done < total else 0  # another pass may begin
        self._left = total - done
        if not 0 < before < done:
            return 0.0
        self._fastest = min(self._fastest, (now - since) / (done - before))
        self._paces += 1
        return (total - done) * self._fastest if self._paces >= PACES else 0.0

    @property
    def age(self) -> float:
        """Seconds since it was begun."""
        return self._clock() - self._began

    def probable_seconds_left(self) -> float | None:
        """From now on, at the pace of its own steps; None while none is known. Any thread may ask.

        It is for who has to decide now, so one pace is enough, although it may mislead.
        """
        if not self._paces:
            return None
        return max(0.0, self._left * self._fastest - (self._clock() - self._last))
