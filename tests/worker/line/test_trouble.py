"""Trouble that lasts is told in few lines."""

from __future__ import annotations

import logging
import threading
from contextlib import closing
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from tests.support.sandbox_client import AGENT, MODEL, MODELS, WORKER_KEY, MovableClock
from worker.clock import elapsed_seconds
from worker.horde.api import Offer, Slot, slots_of
from worker.horde.client import HordeClient
from worker.jobs.journal import Journal
from worker.jobs.ledger import Ledger
from worker.jobs.results import PAUSED, STOPPING, Cleared, ImageEnd, JobStage
from worker.jobs.status import ObstacleKind
from worker.line.delivery import Delivery
from worker.line.limits import Limits
from worker.line.popper import IDLE_SECONDS, Popper, Told
from worker.line.trouble import Trouble, duration
from worker.sandbox import Reply, Sandbox
from worker.service.logs import screen_handler

HINT = "a hint of many words " * 10


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock(0.0)


@pytest.fixture(autouse=True)
def all_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


def test_a_call_that_fails_for_minutes_is_summed_up(
    clock: MovableClock, caplog: pytest.LogCaptureFixture
):
    trouble = Trouble("upload failing", logging.getLogger("it"), over="it works", clock=clock)
    for _ in range(60):  # an hour
        trouble.failed(f"upload failed: {HINT}")
        clock.move(60)
    trouble.over()
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == f"upload failed: {HINT}"
    assert sum(HINT in line for line in lines) == 1
    assert lines[1].startswith("upload failing for 1 min, 2 tries: upload failed")
    assert lines[-1] == "it works, after 60 min, 60 tries"
    assert len(lines) < 9


def test_what_is_summed_up_is_named_once(clock: MovableClock, caplog: pytest.LogCaptureFixture):
    trouble = Trouble("on hold", logging.getLogger("it"), over="it works", clock=clock)
    trouble.failed("on hold: maintenance")
    clock.move(60)
    trouble.failed("on hold: maintenance")
    assert caplog.messages[-1] == "on hold for 1 min, 2 tries: maintenance"


def test_a_hiccup_is_one_line_and_several_callers_are_one_trouble(
    clock: MovableClock, caplog: pytest.LogCaptureFixture
):
    trouble = Trouble("upload failing", logging.getLogger("it"), over="it works", clock=clock)
    for caller in ("a", "b", "a"):
        trouble.failed("upload failed", caller)
    trouble.over("c")
    trouble.over("a")
    trouble.failed("upload failed", "b")
    clock.move(1)
    trouble.over("b")
    assert [record.getMessage() for record in caplog.records] == ["upload failed"]


def test_a_caller_that_gives_up_ends_no_trouble_and_a_call_that_works_does(
    clock: MovableClock, caplog: pytest.LogCaptureFixture
):
    trouble = Trouble("upload failing", logging.getLogger("it"), over="it works", clock=clock)
    trouble.failed("upload failed", "a")
    clock.move(40)
    trouble.given_up("a")
    assert len(caplog.records) == 1
    trouble.failed("upload failed", "b")
    trouble.over("b")
    trouble.over("b")
    trouble.given_up("b")
    lines = [record.getMessage() for record in caplog.records]
    assert lines == ["upload failed", "it works, after 40 s, 2 tries"]


def test_a_submit_that_is_given_up_is_not_said_to_work_again(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("worker.line.trouble.SHORT_SECONDS", 0.0)
    with Sandbox(MODELS) as horde:
        horde.faults.inject("submit", Reply(503))
        client = HordeClient(horde.url, WORKER_KEY, client_agent="a test:1:url")
        over_at = elapsed_seconds() + 2.5
        slot = Slot(id="a", upload_url="", index=0, batch=1, over_at=over_at)
        end = Delivery(client, threading.Event()).submit(Cleared(slot, 1, b""))
        client.close()
    assert end.stage is JobStage.given_up
    assert "submit failed and is tried again" in caplog.text
    assert "works again" not in caplog.text


def test_another_cause_is_told_at_once_and_the_same_one_at_least_every_hour(
    clock: MovableClock, caplog: pytest.LogCaptureFixture
):
    told = Told(Journal(Ledger(None)), clock)
    causes = ["TimeoutIP: shut out"] * 480 + ["WorkerMaintenance: too many dropped"] * 1440
    for tries, cause in enumerate(causes):  # 8 hours
        told.state(f"on hold: {cause}. Remedy: wait {tries} s", "on hold", ObstacleKind.trouble)
        clock.move(15)
    begun, *summed_up = caplog.records[:4]
    assert begun.getMessage() == "on hold: TimeoutIP: shut out. Remedy: wait 0 s"
    assert all(" for " in record.getMessage() for record in summed_up)
    lines = [record.getMessage() for record in caplog.records]
    assert lines.count("on hold: WorkerMaintenance: too many dropped. Remedy: wait 480 s") == 1
    assert len(lines) == 13


def test_causes_that_are_always_new_fill_no_log(
    clock: MovableClock, caplog: pytest.LogCaptureFixture
):
    trouble = Trouble("pop failing", logging.getLogger("it"), over="it works", clock=clock)
    for number in range(200):
        trouble.failed("x" * number)
        clock.move(15)
    assert len(caplog.records) < 20


def test_a_live_horde_that_skips_something_each_time_fills_no_log(
    clock: MovableClock, caplog: pytest.LogCaptureFixture
):
    journal = Journal(Ledger(None))
    told = Told(journal, clock)
    for job in range(100):
        told.state("")
        told.idle(f"nsfw {job}, bridge_version 3")
        assert journal.obstacle.kind is ObstacleKind.idle
        clock.move(5)
        told.state("")
        told.worked()
        assert journal.obstacle.kind is ObstacleKind.none
    assert not caplog.records
    for _ in range(int(2 * 3600 / 5)):
        told.state("")
        told.idle("nsfw 7")
        clock.move(5)
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == "no job for 10 min: no job fits this worker; skipped requests: nsfw 7"
    assert len(lines) == 4
    assert clock.now > IDLE_SECONDS


def test_what_keeps_jobs_away_is_told_once_and_its_end(
    clock: MovableClock, caplog: pytest.LogCaptureFixture
):
    told = Told(Journal(Ledger(None)), clock)
    for tries in range(3):
        told.state(f"too many failed: asking for no more for {tries} minutes")
        clock.move(20)
    told.state("on hold: why", "on hold", ObstacleKind.maintenance)
    clock.move(15)
    told.state("on hold: why", "on hold", ObstacleKind.maintenance)
    told.state("")
    told.state("")
    assert [record.getMessage() for record in caplog.records] == [
        "too many failed: asking for no more for 0 minutes",
        "on hold: why",
        "all is well again, after 15 s, 2 tries",
    ]


@pytest.mark.parametrize("others", [0, 6])
def test_images_that_a_stop_gave_back_are_no_failures(tmp_path: Path, others: int):
    """They count as drops all the same, for the horde counts them."""
    path = tmp_path / "ledger.sqlite"
    reasons = [STOPPING] * 8 + ["it broke"] * others
    with closing(Ledger(path)) as earlier:
        for number, reason in enumerate(reasons):
            slots = slots_of((f"id-{number}",), ("",), elapsed_seconds() + 60)
            earlier.popped(slots, "m")
            end = ImageEnd(JobStage.faulted, reason=reason, is_drop=True)
            earlier.ended(slots[0].id, end)
    with closing(Ledger(path)) as ledger, Sandbox(MODELS, limits={}) as horde:
        client = HordeClient(horde.url, WORKER_KEY, client_agent="a test:1:url")
        journal = Journal(ledger)
        offer = Offer(name="tester", models=(MODEL,), bridge_agent=AGENT, max_pixels=1 << 20)
        limits = Limits(idle_seconds=(0.01, 0.01))
        popper = Popper(client, lambda: offer, threading.Event(), journal=journal, limits=limits)
        popper.pop()
        client.close()
    told = journal.obstacle.told
    assert ("6 images failed within the last hour" in told) == bool(others)
    assert ("lower max_power" in told) == bool(others)
    assert journal.drop_limit.is_strained == bool(others)
    assert journal.drop_limit.allowance(0) == 16 - len(reasons)


def test_a_stop_in_this_life_is_no_failure_either():
    journal = Journal(Ledger(None))
    for number, reason in enumerate([STOPPING, PAUSED, "it broke"]):
        name = f"id-{number}"
        journal.popped(slots_of((name,), ("",), elapsed_seconds() + 60), "m")
        journal.ended(name, name, ImageEnd(JobStage.faulted, reason=reason, is_drop=True))
    assert (journal.drop_limit.drops, journal.drop_limit.failures) == (3, 1)
    assert journal.view().images_failed == 1


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.4, "0 s"), (59, "59 s"), (60, "1 min"), (7199, "120 min"), (7200, "2 h")],
)
def test_a_duration_is_short(seconds: float, told: str):
    assert duration(seconds) == told


def test_a_line_on_a_terminal_has_its_time_and_level_once():
    out = StringIO()
    console = Console(file=out, force_terminal=True, width=120, color_system=None, _environ={})
    record = logging.LogRecord("worker.x", logging.WARNING, "", 0, "it is %s", ("late",), None)
    screen_handler(console).handle(record)
    (line,) = out.getvalue().splitlines()
    assert line.split(maxsplit=1)[1].strip() == "WARNING  it is late"
    assert line[:10].strip().strip("[]").count(":") == 2
    assert "/" not in line
