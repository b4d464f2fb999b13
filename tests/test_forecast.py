"""What can't be done in time is known early, and nothing is that could have been done."""

from __future__ import annotations

from tests.sandbox_client import MovableClock
from worker.forecast import Progress


def test_the_steps_left_are_counted_at_the_fastest_step_after_the_first():
    clock = MovableClock(0.0)
    progress = Progress(clock)
    clock.move(30)  # text encoding, and the first step
    assert progress.seconds_left(1, 10) == 0.0
    clock.move(2)
    assert progress.seconds_left(2, 10) == 16.0
    clock.move(4)
    assert progress.seconds_left(3, 10) == 14.0


def test_of_the_steps_some_may_not_be_told_and_passes_follow_each_other():
    clock = MovableClock(0.0)
    progress = Progress(clock)
    assert progress.seconds_left(1, 10) == 0.0
    clock.move(4)
    assert progress.seconds_left(5, 10) == 5.0
    clock.move(10)
    assert progress.seconds_left(10, 10) == 0.0
    clock.move(1)  # decoding, and the first steps of another pass
    assert progress.seconds_left(2, 10) == 0.0
    clock.move(1)
    assert progress.seconds_left(4, 10) == 3.0
