"""What can't be done in time is known early, and nothing is that could have been done."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hordelib.families import SD1, SDXL
from hordelib.params import GenerationParams
from tests.sandbox_client import MovableClock
from worker.forecast import REMEMBERED, Forecast, Progress, pixelsteps

SMALL = GenerationParams(prompt="", width=512, height=512, steps=20)


def test_nothing_is_known_of_a_family_before_its_first_job():
    forecast = Forecast()
    forecast.learn(SMALL, SD1, 4.0)
    assert forecast.least_seconds(SMALL, SDXL) == 0.0


def test_the_fastest_job_of_late_sets_the_pace():
    forecast = Forecast()
    for seconds in (8.0, 4.0, 6.0):
        forecast.learn(SMALL, SD1, seconds)
    assert forecast.least_seconds(SMALL, SD1) == pytest.approx(4.0)
    for _ in range(REMEMBERED):
        forecast.learn(SMALL, SD1, 6.0)
    assert forecast.least_seconds(SMALL, SD1) == pytest.approx(6.0)


@pytest.mark.parametrize("fixed_seconds", [0.0, 1.5, 20.0])
def test_no_estimate_is_longer_than_the_truth(fixed_seconds: float):
    """A part of each job's time does not grow with it."""

    def truth(params: GenerationParams) -> float:
        return fixed_seconds + 0.5e-6 * pixelsteps(params)

    sizes = [replace(SMALL, width=64 * n, height=64 * n, steps=4 * n) for n in (1, 4, 8, 16)]
    for served in sizes:
        forecast = Forecast()
        forecast.learn(served, SD1, truth(served))
        for asked in sizes:
            assert 0 < forecast.least_seconds(asked, SD1) <= truth(asked) * 1.000001


def test_a_job_that_samples_nothing_teaches_nothing():
    forecast = Forecast()
    forecast.learn(replace(SMALL, return_control_map=True), SD1, 0.001)
    assert forecast.least_seconds(SMALL, SD1) == 0.0


def test_the_steps_left_are_counted_at_the_fastest_step_after_the_first():
    clock = MovableClock(0.0)
    progress = Progress(clock)
    clock.move(30)  # text encoding, and the first step
    assert progress.seconds_left(1, 10) == 0.0
    clock.move(2)
    assert progress.seconds_left(2, 10) == 16.0
    clock.move(4)
    assert progress.seconds_left(3, 10) == 14.0
