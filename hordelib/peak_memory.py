"""The most memory that something took while it ran."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Self

INTERVAL_SECONDS = 0.01


class PeakMemory:
    """Reads a memory from a thread of its own, for as long as the block lasts.

    What comes and goes between two readings is missed.
    """

    def __init__(self, used_bytes: Callable[[], int]):
        self._used_bytes = used_bytes
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peak memory", daemon=True)
        self._first_bytes = self._most_bytes = used_bytes()

    @property
    def grown_bytes(self) -> int:
        """How much more it was at most than at the start."""
        return self._most_bytes - self._first_bytes

    def restart(self) -> int:
        """What it has grown by at most until now; from now on, what is before counts no more."""
        self._look()
        grown_bytes = self.grown_bytes
        self._most_bytes = self._used_bytes()
        return grown_bytes

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(INTERVAL_SECONDS):
            self._look()

    def _look(self) -> None:
        self._most_bytes = max(self._most_bytes, self._used_bytes())
