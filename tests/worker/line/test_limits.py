"""How far a worker pops ahead."""

from __future__ import annotations

from math import inf

import pytest

from worker.jobs.results import JobStage
from worker.jobs.status import JobRow
from worker.line.limits import Limits


def jobs(*seconds: float, stage: JobStage = JobStage.waiting) -> list[JobRow]:
    """Jobs of which is known how long they take; infinite: not known."""
    return [
        JobRow(str(number), "a model", (), frozenset(), stage, own_seconds=each)
        for number, each in enumerate(seconds)
    ]


@pytest.mark.parametrize("waiting", [0, 2])
def test_the_job_at_work_and_so_many_waiting_always_have_room(waiting: int):
    limits = Limits(waiting_jobs=waiting)
    assert limits.have_room(jobs(*[inf] * waiting))
    assert not limits.have_room(jobs(*[inf] * (waiting + 1)))


def test_short_jobs_may_be_more():
    limits = Limits(waiting_jobs=1, seconds_ahead=10, most_ahead=8)
    assert limits.have_room(jobs(*[1.0] * 7))
    # Until it is read, nobody knows what it takes.
    assert not limits.have_room([*jobs(*[1.0] * 6), *jobs(inf, stage=JobStage.popped)])


def test_no_more_are_taken_than_the_most():
    assert not Limits(waiting_jobs=1, seconds_ahead=10, most_ahead=4).have_room(jobs(*[0.1] * 4))


@pytest.mark.parametrize("seconds", [6.0, inf])
def test_long_jobs_and_unknown_ones_are_no_more_than_always(seconds: float):
    limits = Limits(waiting_jobs=1, seconds_ahead=10, most_ahead=8)
    assert not limits.have_room(jobs(seconds, seconds))


def test_none_may_wait_where_the_owner_wants_none():
    assert not Limits(waiting_jobs=0, seconds_ahead=10, most_ahead=8).have_room(jobs(0.1))


def test_what_is_made_takes_no_room():
    limits = Limits(waiting_jobs=0)
    made = (JobStage.encoding, JobStage.judging, JobStage.delivering)
    assert limits.have_room(job for stage in made for job in jobs(inf, stage=stage))
