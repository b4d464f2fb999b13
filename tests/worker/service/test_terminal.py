"""What the owner sees in a terminal while the worker runs."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from hordelib.job.params import GenerationParams
from tests.support.owner import PROJECT
from worker.horde.api import slots_of
from worker.jobs.journal import Journal
from worker.jobs.ledger import Ledger
from worker.jobs.results import ImageEnd, JobStage
from worker.jobs.status import Obstacle, ObstacleKind
from worker.service.terminal import make_console, make_display, set_up_logging


@dataclass
class Screen:
    """A terminal, and what was written to it since the last look."""

    columns: int = 120
    output: StringIO = field(default_factory=StringIO)

    def __post_init__(self) -> None:
        self.console = Console(
            file=self.output,
            force_terminal=True,
            width=self.columns,
            height=40,
            color_system=None,
            _environ={},
        )

    def news(self) -> str:
        text = self.output.getvalue()
        self.output.seek(0)
        self.output.truncate()
        return text


@pytest.fixture
def journal() -> Journal:
    """One job at work."""
    journal = Journal(Ledger(None))
    prompt = "a red circle in the very middle of a plain blue background"
    params = GenerationParams(prompt=prompt, width=512, height=768, steps=20)
    journal.popped(slots_of(("a-long-job-id",), ("",), time.monotonic() + 60), "demo")
    journal.understood("a-long-job-id", params, 1.0)
    journal.move("a-long-job-id", JobStage.running)
    return journal


def test_the_live_view_is_drawn_anew_where_something_has_changed(journal: Journal):
    screen = Screen()
    with make_display(screen.console, journal) as view:
        view.refresh()
        first = screen.news()
        assert "a red circle" in first
        assert "512x768" in first
        view.refresh()
        assert screen.news() == ""
        journal.stepped("a-long-job-id", 5, 20)
        view.refresh()
        stepped = screen.news()
        assert "step 5/20" in stepped
        assert "a red circle" in stepped
        journal.ended("a-long-job-id", "a-long-job-id", ImageEnd(JobStage.submitted, 12.5))
        view.refresh()
        over = screen.news()
        assert "submitted" in over
        assert "12.50" in over


def test_the_live_view_fits_a_terminal_that_was_made_narrower(journal: Journal):
    screen = Screen(columns=120)
    with make_display(screen.console, journal) as view:
        view.refresh()
        screen.news()
        screen.console.width = 80
        view.refresh()
        last_columns = [line.rstrip()[-7:] for line in screen.news().splitlines()]
    assert "state" in [each.split()[-1] for each in last_columns if each.split()]
    assert "running" in last_columns


def test_the_live_view_is_drawn_again_after_a_while(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
):
    screen = Screen()
    with make_display(screen.console, journal) as view:
        view.refresh()
        screen.news()
        monkeypatch.setattr("worker.service.terminal.REDRAWN_SECONDS", 0.0)
        view.refresh()
        assert "a red circle" in screen.news()


HOSTILE = ["on hold: back at [/5pm]", "skipped: [/x] 3", "[bold", ":warning: [link=file:///x]"]


@pytest.mark.parametrize("said", HOSTILE)
def test_what_strangers_write_is_shown_as_it_is(said: str):
    screen, journal = Screen(), Journal(Ledger(None))
    with make_display(screen.console, journal) as view:
        journal.say(Obstacle(said, ObstacleKind.maintenance))
        view.refresh()
        assert said in screen.news()
    assert said in screen.news()
    out = StringIO()
    console, table = make_console(out), Table()
    table.add_column(said)
    table.add_row(said)
    console.print(said)
    console.print(table)
    assert out.getvalue().count(said) == 3


def test_every_console_is_made_in_one_place():
    makers = [
        str(path.relative_to(PROJECT))
        for room in ("worker", "hordelib", "benchmarks")
        for path in (PROJECT / room).rglob("*.py")
        if " Console(" in path.read_text("utf-8")
    ]
    assert makers == ["worker/service/terminal.py"]


def test_a_log_that_is_a_link_is_told_with_the_remedy(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "dreamer.log").symlink_to(tmp_path / "elsewhere.log")
    before = logging.raiseExceptions
    try:
        set_up_logging(make_console(StringIO()), logs / "dreamer.log")
    finally:
        logging.raiseExceptions = before
    (record,) = caplog.records
    told = record.getMessage()
    assert f"nothing is logged to {logs / 'dreamer.log'}" in told
    assert "remove the link" in told
    assert not (tmp_path / "elsewhere.log").exists()
