"""What can't be done in time is known early, and nothing is that could have been done."""

from __future__ import annotations

from tests.support.sandbox_client import MovableClock
from worker.prediction.progress import StepProgress


def test_the_steps_left_are_counted_at_the_fastest_pace_once_some_are_known():
    clock = MovableClock(0.0)
    progress = StepProgress(clock)
    clock.move(30)  # text encoding, and the first step
    assert progress.seconds_left(1, 10) == 0.0
    for done, seconds, left in ((2, 9, 0.0), (3, 2, 0.0), (4, 4, 12.0), (5, 1, 5.0)):
        clock.move(seconds)
        assert progress.seconds_left(done, 10) == left


def test_at_a_stop_one_pace_is_enough_and_time_runs_on():
    clock = MovableClock(0.0)
    progress = StepProgress(clock)
    clock.move(30)
    progress.seconds_left(1, 10)
    assert progress.probable_seconds_left() is None
    clock.move(4)
    progress.seconds_left(2, 10)
    assert progress.probable_seconds_left() == 32
    clock.move(3)
    assert progress.probable_seconds_left() == 29
    clock.move(100)
    assert progress.probable_seconds_left() == 0
    assert progress.age == 137


def test_of_the_steps_some_may_not_be_told_and_passes_follow_each_other():
    clock = MovableClock(0.0)
    progress = StepProgress(clock)
    assert progress.seconds_left(1, 20) == 0.0
    for done, left in ((5, 0.0), (9, 0.0), (13, 7.0), (20, 0.0)):
        clock.move(4)
        assert progress.seconds_left(done, 20) == left
    clock.move(1)  # decoding, and the first steps of another pass
    assert progress.seconds_left(2, 10) == 0.0
    clock.move(1)
    assert progress.seconds_left(4, 10) == 3.0
