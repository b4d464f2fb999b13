"""The most that is used beside models, of a memory that keeps a record of it, as a card does."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from contextlib import contextmanager

import pytest

from hordelib.memory import peak as peak_memory
from hordelib.memory.peak import PeakMemory


class Card:
    """A simulated one. Its models move under a lock, and are said to have done so at the end."""

    def __init__(self, weights: int):
        self._lock = threading.RLock()
        self.weights = weights
        self._used = self._most = weights
        self.readings = 0

    def most_bytes(self) -> int:
        self.readings += 1
        return self._most

    def restart(self) -> None:
        self._most = self._used

    def take(self, size: int) -> None:
        self._used += size
        self._most = max(self._most, self._used)

    def compute(self, size: int) -> None:
        self.take(size)
        self.take(-size)

    def move(self, *sizes: int) -> None:
        for size in sizes:
            self.take(size)
        self.weights += sum(sizes)

    @contextmanager
    def undisturbed(self) -> Generator[None]:
        with self._lock:
            yield

    def weights_bytes(self) -> int:
        with self._lock:
            return self.weights

    def peak(self) -> PeakMemory:
        return PeakMemory(self, self.weights_bytes, self.undisturbed)


@pytest.fixture
def card() -> Card:
    card = Card(weights=80)
    card.compute(900)  # before anybody asked
    return card


@pytest.fixture
def nobody_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Readings are those of the test alone."""
    monkeypatch.setattr(peak_memory, "FIRST_SECONDS", 3600)


@pytest.mark.usefixtures("nobody_watches")
def test_what_comes_and_goes_between_two_readings_counts(card: Card):
    with card.peak() as peak:
        card.compute(50)
        assert peak.restart() == 50
        card.compute(20)
        card.take(5)
        assert peak.restart() == 20
        assert peak.restart() == 5


def test_models_that_move_under_a_reader_are_no_working_memory(card: Card):
    with card.peak() as peak:
        card.compute(7)
        for sizes, working in (((-80, 30), 12), ((-30, 500), 15), ((-500, 20), 4)):
            with card.undisturbed():
                peak.restart()
                _wait_for_reader()  # the lock keeps it from what is half moved
                card.move(*sizes)
            readings = card.readings
            while card.readings == readings:
                time.sleep(0.001)
            card.compute(working)
            with card.undisturbed():
                assert peak.restart() == working


def _wait_for_reader() -> None:
    time.sleep(3 * peak_memory.LAST_SECONDS)
