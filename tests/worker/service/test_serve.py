"""The main thread's naps: long, and over at once when somebody wants the worker to stop."""

import os
import signal
import threading
import time
from collections.abc import Generator

import pytest

from worker.children.signals import StopSignals
from worker.service.serve import way_to_hurry


@pytest.fixture
def signals() -> Generator[StopSignals]:
    """They count SIGUSR1 here."""
    signals = StopSignals()
    before = signal.signal(signal.SIGUSR1, signals.came)
    yield signals
    signal.signal(signal.SIGUSR1, before)
    signals.close()


def seconds_of(nap: float, signals: StopSignals) -> float:
    began = time.monotonic()
    signals.nap(nap)
    return time.monotonic() - began


def test_a_signal_ends_a_nap_at_once_and_the_next_one_lasts(signals: StopSignals):
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGUSR1)).start()
    assert seconds_of(60, signals) < 5
    assert signals.count == 1
    assert seconds_of(0.2, signals) >= 0.2


@pytest.mark.parametrize(
    ("number", "told"), [(signal.SIGINT, "press Ctrl-C again"), (signal.SIGTERM, "a second signal")]
)
def test_who_stops_it_is_told_how_to_hurry(signals: StopSignals, number: int, told: str):
    signals.came(number)
    assert way_to_hurry(signals).startswith(told)


def test_signals_that_came_before_a_nap_end_it_once_however_many_they_were(signals: StopSignals):
    for _ in range(3):
        os.kill(os.getpid(), signal.SIGUSR1)
    assert seconds_of(60, signals) < 5
    assert signals.count == 3
    assert seconds_of(0.2, signals) >= 0.2
