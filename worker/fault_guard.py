"""Keeps the worker from being put into maintenance: the horde does that to one that drops jobs.

The 21st faulted or aborted job within an hour is one too many (horde API: "dropping too many
jobs"). What makes one job fail often makes the next one fail too, so the worker stops asking
before.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

WINDOW_SECONDS = 3600.0
MOST_FAULTS = 12  # of 20: those at work may fail as well, and a batch counts once per image


class FaultGuard:
    """Counts the images that were not delivered within the last hour. Any thread may use it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, most_faults: int = MOST_FAULTS):
        self._clock = clock
        self._most_faults = most_faults
        self._lock = threading.Lock()
        self._faults: deque[float] = deque()

    def count(self, faults: int) -> None:
        with self._lock:
            self._faults.extend([self._clock()] * faults)

    def wait_seconds(self) -> float:
        """How long to take no jobs; 0 while there are few enough faults."""
        with self._lock:
            now = self._clock()
            while self._faults and self._faults[0] <= now - WINDOW_SECONDS:
                self._faults.popleft()
            if len(self._faults) < self._most_faults:
                return 0.0
            return self._faults[-self._most_faults] + WINDOW_SECONDS - now
