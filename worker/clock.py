"""The clocks of what others decide: when the horde gives a job up, and what outlives the process.

While a laptop sleeps, the horde's time goes on and time.monotonic() stands still; and a wall clock
may be set. So moments in these rooms are of `elapsed_seconds`: horde, jobs, line, loras, net.
What only this process decides, such as how long a child may be silent, is of time.monotonic(): in
its sleep, nothing is late.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

LEAST_SECONDS = 1.0  # that the clock was set by; less is the usual drift


def elapsed_seconds() -> float:
    """Since some moment before the process began; time that the machine slept counts.

    As steady as time.monotonic(): nobody sets it. Where a virtual machine is paused by its host,
    no clock in it tells.
    """
    if sys.platform == "linux":
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    if sys.platform == "darwin":
        return time.clock_gettime(time.CLOCK_MONOTONIC)
    return time.monotonic()


class SteadyClock:
    """Seconds since 1970, as of the latest `catch_up`; they pass evenly between two of them."""

    def __init__(
        self,
        wall: Callable[[], float] = time.time,
        elapsed: Callable[[], float] = elapsed_seconds,
    ):
        self._wall = wall
        self._elapsed = elapsed
        self._offset = wall() - elapsed()

    def __call__(self) -> float:
        return self._offset + self._elapsed()

    def catch_up(self) -> float:
        """Follow the machine's clock again; seconds by which it was set since, 0 for none."""
        ahead = self._wall() - self()
        if abs(ahead) < LEAST_SECONDS:
            return 0.0
        self._offset += ahead
        return ahead
