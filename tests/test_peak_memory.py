"""The most memory that something takes, where the memory keeps a record of it, as a card does."""

from __future__ import annotations

import pytest

from hordelib import peak_memory
from hordelib.peak_memory import BesideWeights, PeakMemory


class Record:
    """A memory that says what was used of it at most since it was asked before."""

    def __init__(self, used: int):
        self._used = self._most = used

    def __call__(self) -> int:
        most, self._most = self._most, self._used
        return most

    def take(self, size: int) -> None:
        self._used += size
        self._most = max(self._most, self._used)

    def take_for_a_moment(self, size: int) -> None:
        self.take(size)
        self.take(-size)


@pytest.fixture
def record(monkeypatch: pytest.MonkeyPatch) -> Record:
    """It is read by nobody but who asks: the thread would have to come at the right moment."""
    monkeypatch.setattr(peak_memory, "FIRST_SECONDS", 3600)
    record = Record(100)
    record.take_for_a_moment(900)  # before anybody asked
    return record


def test_what_comes_and_goes_between_two_readings_counts(record: Record):
    with PeakMemory(record) as peak:
        record.take_for_a_moment(50)
        assert peak.restart() == 50
        record.take_for_a_moment(20)
        record.take(5)
        assert peak.restart() == 20
        assert peak.restart() == 5


def test_models_that_move_are_no_working_memory(record: Record):
    weights = 80

    def move(size: int) -> None:
        nonlocal weights
        record.take(size)
        weights += size

    with PeakMemory(BesideWeights(record, lambda: weights)) as peak:
        record.take_for_a_moment(7)  # with the first model
        assert peak.restart() == 7
        move(-80)
        move(30)
        record.take_for_a_moment(12)  # with the second, which is smaller
        peak.restart()
        record.take_for_a_moment(12)
        assert peak.restart() == 12
        move(200)
        record.take_for_a_moment(15)  # with the third, which is larger
        assert peak.restart() == 15
