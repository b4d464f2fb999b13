from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from hordelib.job.params import GenerationParams
from tests.worker.service.test_overview import slots
from worker.horde.kinds import Kind
from worker.jobs.journal import Journal
from worker.jobs.ledger import Ledger
from worker.jobs.results import ImageEnd, JobStage, Results
from worker.service.history import FILE, HOUR, MOST_HOURS, MOST_REASONS, OTHERS, History

PROMPT = "a prompt that nobody shall read"


class Clock:
    def __init__(self, hour: int = 490_000):
        self.now = hour * HOUR + 5.0

    def __call__(self) -> float:
        return self.now

    def move(self, hours: float) -> None:
        self.now += hours * HOUR


@pytest.fixture
def clock() -> Clock:
    return Clock()


def finished(journal: Journal, name: str, *reasons: str) -> None:
    """A job of 1.2288 megapixelsteps an image in 3 seconds, one of whose images is submitted, the
    others fail for these reasons."""
    ids = [name, *(f"{name}-{number}" for number in range(len(reasons)))]
    journal.popped(slots(*ids), "Deliberate")
    params = GenerationParams(prompt=PROMPT, width=320, height=384, steps=10, images=len(ids))
    journal.understood(name, params, 3.0)
    journal.made(Results(name, ()), 3.0)
    for id, reason in zip(ids[1:], reasons, strict=True):
        journal.ended(name, id, ImageEnd(JobStage.faulted, reason=reason))
    journal.ended(name, name, ImageEnd(JobStage.submitted, kudos=2.0))


def test_hours_of_a_file_that_was_away_are_kept(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("worker.jobs.durable_sqlite.RETRY_SECONDS", 0.0)
    folder, away = tmp_path / "state", tmp_path / "away"
    journal = Journal(Ledger(None))
    with closing(History(folder / FILE, now=clock)) as history:
        finished(journal, "a")
        history.note(journal.view())
        history.note(journal.view())
    folder.rename(away)
    folder.touch()
    with closing(History(folder / FILE, now=clock)) as history:
        finished(journal, "b")
        history.note(journal.view())
        folder.unlink()
        away.rename(folder)
    with closing(History(folder / FILE, now=clock)) as history:
        clock.move(1)
        assert history.hours(24)[0].images == 1


def test_jobs_count_once_in_the_hour_in_which_they_ended(tmp_path: Path, clock: Clock):
    journal = Journal(Ledger(None))
    with closing(History(tmp_path / FILE, now=clock)) as history:
        finished(journal, "a")
        history.note(journal.view())
        history.note(journal.view())
        clock.move(2)
        finished(journal, "b", "no such LoRA")
        finished(journal, "c")
        history.note(journal.view())
        history.note(journal.view())
    with closing(History(tmp_path / FILE, now=clock)) as history:  # after a restart
        first, second = history.hours(24)
        assert history.hours(2) == [second]
    assert (first.images, first.failed, first.kudos, first.busy_seconds) == (1, 0, 2.0, 3.0)
    assert first.megapixelsteps == pytest.approx(1.2288)
    assert (second.images, second.failed, second.faults) == (2, 1, {"no such LoRA": 1})
    assert second.hour - first.hour == 2
    assert PROMPT.encode() not in (tmp_path / FILE).read_bytes()


def test_forms_and_texts_count_beside_the_pictures(tmp_path: Path, clock: Clock):
    journal = Journal(Ledger(None))
    finished(journal, "a", "lost")
    for kind in (Kind.form, Kind.text):
        beside = journal.of(kind)
        for number in range(2):
            name = f"{kind} {number}"
            beside.popped(slots(name), "palette")
            beside.ended(name, name, ImageEnd(JobStage.submitted, kudos=1.0))
        if kind is Kind.text:
            beside.popped(slots("refused"), "a model")
            refused = ImageEnd(JobStage.faulted, reason=f'refused with 422: "{PROMPT}"')
            beside.ended("refused", "refused", refused)
    with closing(History(tmp_path / FILE, now=clock)) as history:
        for _ in range(2):
            history.note(journal.view(), journal.views_beside())
    with closing(History(tmp_path / FILE, now=clock)) as history:
        (hour,) = history.hours(1)
    assert (hour.images, hour.forms, hour.texts, hour.failed, hour.kudos) == (1, 2, 2, 2, 6.0)
    assert hour.faults == {"lost": 1, 'refused with 422: "…"': 1}


def test_what_several_lives_did_in_an_hour_is_added_up(tmp_path: Path, clock: Clock):
    for name in ("a", "b"):
        journal = Journal(Ledger(None))
        with closing(History(tmp_path / FILE, now=clock)) as history:
            finished(journal, name, "lost")
            history.note(journal.view())
            history.note(journal.view())
    with closing(History(tmp_path / FILE, now=clock)) as history:
        (hour,) = history.hours(1)
    assert (hour.images, hour.faults) == (2, {"lost": 2})
    assert 0 < hour.up_seconds < 10


def test_a_broken_file_is_put_aside_and_counting_goes_on(tmp_path: Path, clock: Clock):
    (tmp_path / FILE).write_bytes(b"no database at all" * 500)
    journal = Journal(Ledger(None))
    with closing(History(tmp_path / FILE, now=clock)) as history:
        finished(journal, "a")
        history.note(journal.view())
    with closing(History(tmp_path / FILE, now=clock)) as history:
        assert history.hours(1)[0].images == 1
    assert (tmp_path / f"{FILE}.damaged").is_file()


def test_strangers_words_in_reasons_take_bounded_room(clock: Clock):
    journal = Journal(Ledger(None))
    history = History(None, now=clock)
    for number in range(2 * MOST_REASONS):
        finished(journal, f"job {number}", f"{number} is odd {'x' * 1000}")
    history.note(journal.view())
    history.close()
    history = History(None, now=clock)
    for number in range(2 * MOST_REASONS):
        finished(journal, f"more {number}", f"{number} is odd")
    history.note(journal.view())
    clock.move(1)
    history.note(journal.view())
    clock.move(-1)
    (hour, *_) = history.hours(1)
    assert len(hour.faults) == MOST_REASONS + 1
    assert all(len(reason) <= 100 for reason in hour.faults)
    assert OTHERS in hour.faults


def test_a_clock_that_jumps_costs_no_month_and_no_disk(tmp_path: Path, clock: Clock):
    journal = Journal(Ledger(None))
    with closing(History(tmp_path / FILE, now=clock)) as history:
        finished(journal, "a")
        history.note(journal.view())
        for hours in (1, 200_000, 1, -200_002):
            clock.move(hours)
            history.note(journal.view())
        assert history.hours(24)[0].images == 1
        for _ in range(MOST_HOURS + 100):
            clock.move(1)
            history.note(journal.view())
        clock.move(1)
        history.note(journal.view())
        assert len(history.hours(10 * MOST_HOURS)) <= MOST_HOURS
