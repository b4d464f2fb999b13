"""What the device does at each moment, on a clock that the test turns."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from worker.jobs.timeline import Phase, Timeline, busy_share


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def booked(timeline: Timeline) -> dict[Phase, float]:
    return {phase: seconds for phase, seconds in timeline.seconds().items() if seconds}


def test_a_moment_belongs_to_one_phase_however_many_activities_overlap(clock: Clock):
    timeline = Timeline(clock)
    clock.now = 1
    with timeline.during(Phase.POPPING):
        clock.now = 3
        with timeline.during(Phase.ENGINE), timeline.during(Phase.TAKING_IN):
            clock.now = 6
        clock.now = 7
    assert booked(timeline) == {Phase.NO_JOB: 1, Phase.POPPING: 3, Phase.ENGINE: 3}
    assert sum(timeline.seconds().values()) == clock.now


def test_the_engines_own_times_divide_its_run_and_the_rest_stays_with_it(clock: Clock):
    timeline = Timeline(clock)
    with timeline.during(Phase.ENGINE):
        clock.now = 10
    timeline.explain({"text": 1, "sampling": 6, "decoding": 2, "other": 0.5})
    seconds = booked(timeline)
    assert seconds == {Phase.TEXT: 1, Phase.SAMPLING: 6, Phase.DECODING: 2, Phase.ENGINE: 1}
    assert busy_share(seconds) == pytest.approx(0.9)


def test_a_run_that_is_under_way_belongs_to_no_window(clock: Clock):
    timeline = Timeline(clock)
    with timeline.during(Phase.ENGINE):
        clock.now = 4
    timeline.explain({"sampling": 3})
    before = timeline.divided()
    with timeline.during(Phase.ENGINE):
        clock.now = 9
        assert timeline.divided() == before
    timeline.explain({"sampling": 5})
    after = timeline.divided()
    spent = {phase: after[phase] - before[phase] for phase in Phase}
    assert (spent[Phase.SAMPLING], sum(spent.values())) == (5, 5)


def test_an_engine_that_claims_more_time_than_there_was_is_cut_to_it(clock: Clock):
    timeline = Timeline(clock)
    with timeline.during(Phase.ENGINE):
        clock.now = 4
    timeline.explain({"text": 2, "sampling": 6})
    assert booked(timeline) == {Phase.TEXT: 1, Phase.SAMPLING: 3}


def test_without_time_the_device_was_not_busy():
    assert busy_share({}) == 0
