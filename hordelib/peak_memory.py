"""The most memory that something took while it ran."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Self

FIRST_SECONDS, LAST_SECONDS = 0.01, 0.05  # from one reading to the next
SLOWER = 1.2  # times with each reading


class PeakMemory:
    """Reads a memory from a thread of its own, for as long as the block lasts.

    `most_bytes` gives the most since it was asked before. Where a memory only tells how much it is
    now, what comes and goes between two readings is missed. They are dense at first, after a
    `restart` too, and then rarer: the steps of a sampler are alike, and each reading holds them up.
    """

    def __init__(self, most_bytes: Callable[[], int]):
        self._read = most_bytes
        self._ended = threading.Event()
        self._interval_seconds = FIRST_SECONDS
        self._thread = threading.Thread(target=self._watch, name="peak memory", daemon=True)
        self._read()  # what was before does not count
        self._first_bytes = self._most_bytes = self._read()

    @property
    def grown_bytes(self) -> int:
        """How much more it was at most than at the start."""
        return self._most_bytes - self._first_bytes

    def restart(self) -> int:
        """What it has grown by at most until now; from now on, what is before counts no more."""
        self._look()
        grown_bytes = self.grown_bytes
        self._most_bytes = self._read()
        self._interval_seconds = FIRST_SECONDS
        return grown_bytes

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(self._interval_seconds):
            self._look()
            self._interval_seconds = min(LAST_SECONDS, SLOWER * self._interval_seconds)

    def _look(self) -> None:
        self._most_bytes = max(self._most_bytes, self._read())


class BesideWeights:
    """The most that is used beside the weights of models since it was asked before.

    Both are read while models move, so the weights of then and of now count, whichever are more:
    what is moved is no working memory.
    """

    def __init__(self, most_bytes: Callable[[], int], weights_bytes: Callable[[], int]):
        self._most_bytes = most_bytes
        self._weights_bytes = weights_bytes
        self._before_bytes = 0

    def __call__(self) -> int:
        most_bytes = self._most_bytes()  # first: weights can't be asked for while they are moved
        before_bytes, self._before_bytes = self._before_bytes, self._weights_bytes()
        return most_bytes - max(before_bytes, self._before_bytes)
