from __future__ import annotations

from worker.fault_guard import MOST_FAULTS, WINDOW_SECONDS, FaultGuard


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_few_faults_are_no_reason_to_stop():
    guard = FaultGuard(Clock())
    guard.count(MOST_FAULTS - 1)
    assert guard.wait_seconds() == 0


def test_many_faults_stop_the_worker_until_the_first_of_them_are_an_hour_old():
    clock = Clock()
    guard = FaultGuard(clock)
    guard.count(2)
    clock.now = 600
    guard.count(MOST_FAULTS - 2)
    assert guard.wait_seconds() == WINDOW_SECONDS - 600
    clock.now = WINDOW_SECONDS - 1
    assert guard.wait_seconds() == 1
    clock.now = WINDOW_SECONDS
    assert guard.wait_seconds() == 0


def test_more_faults_make_it_wait_longer():
    clock = Clock()
    guard = FaultGuard(clock)
    guard.count(MOST_FAULTS)
    clock.now = 100
    guard.count(MOST_FAULTS)
    assert guard.wait_seconds() == WINDOW_SECONDS
