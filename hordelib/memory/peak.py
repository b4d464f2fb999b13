"""The most memory that something took while it ran, beside the weights of models."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol, Self

FIRST_SECONDS, LAST_SECONDS = 0.01, 0.05  # from one reading to the next
SLOWER = 1.2  # times with each reading


class Record(Protocol):
    """What is used of a memory."""

    def most_bytes(self) -> int:
        """At most since `restart`; what it is now, where the memory keeps no record."""
        ...

    def restart(self) -> None: ...


class PeakMemory:
    """Reads a record from a thread of its own, for as long as the block lasts.

    Readings are dense at first, after a `restart` too, and then rarer: the steps of a sampler are
    alike, and each reading holds them up. Where there is only the memory of now to read, what comes
    and goes between two of them is missed. Where weights have moved since the reading before, the
    weights of then and of now count, whichever are more: what moves is no working memory.

    Args:
        record: of all that is used.
        weights_bytes: what models have of that.
        undisturbed: nobody moves models while a block of it lasts.
    """

    def __init__(
        self,
        record: Record,
        weights_bytes: Callable[[], int],
        undisturbed: Callable[[], AbstractContextManager[None]],
    ):
        self._record = record
        self._read_weights = weights_bytes
        self._undisturbed = undisturbed
        self._ended = threading.Event()
        self._interval_seconds = FIRST_SECONDS
        self._thread = threading.Thread(target=self._watch, name="peak memory", daemon=True)
        with undisturbed():
            self._begin()
        self._first_bytes = self._most_bytes

    @property
    def grown_bytes(self) -> int:
        """How much more it was at most than at the start."""
        return self._most_bytes - self._first_bytes

    def restart(self) -> int:
        """What it has grown by at most until now; from now on, what is before counts no more."""
        with self._undisturbed():
            self._look()
            grown_bytes = self.grown_bytes
            self._begin()
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
            with self._undisturbed():
                self._look()
            self._interval_seconds = min(LAST_SECONDS, SLOWER * self._interval_seconds)

    def _begin(self) -> None:
        self._record.restart()
        self._weights_bytes = self._read_weights()
        self._most_bytes = self._record.most_bytes() - self._weights_bytes

    def _look(self) -> None:
        weights_bytes = self._read_weights()
        beside_bytes = self._record.most_bytes() - max(weights_bytes, self._weights_bytes)
        self._most_bytes = max(self._most_bytes, beside_bytes)
        if weights_bytes != self._weights_bytes:
            self._record.restart()
            self._weights_bytes = weights_bytes
