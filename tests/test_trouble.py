"""Trouble that lasts is told in few lines."""

from __future__ import annotations

import logging
from io import StringIO

import pytest
from rich.console import Console

from tests.sandbox_client import MovableClock
from worker.board import Board, Kind
from worker.popper import IDLE_SECONDS, Told
from worker.terminal import screen_handler
from worker.trouble import Trouble, duration

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


def test_a_live_horde_that_skips_something_each_time_fills_no_log(
    clock: MovableClock, caplog: pytest.LogCaptureFixture
):
    board = Board()
    told = Told(board, clock)
    for job in range(100):
        told.state("")
        told.idle(f"nsfw {job}, bridge_version 3")
        assert board.obstacle.kind is Kind.idle
        clock.move(5)
        told.state("")
        told.worked()
        assert board.obstacle.kind is Kind.none
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
    told = Told(Board(), clock)
    for tries in range(3):
        told.state(f"too many failed: asking for no more for {tries} minutes")
        clock.move(20)
    told.state("on hold: why", "on hold", Kind.maintenance)
    clock.move(15)
    told.state("on hold: why", "on hold", Kind.maintenance)
    told.state("")
    told.state("")
    assert [record.getMessage() for record in caplog.records] == [
        "too many failed: asking for no more for 0 minutes",
        "on hold: why",
        "all is well again, after 15 s, 2 tries",
    ]


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
