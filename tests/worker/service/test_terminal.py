"""What the owner sees in a terminal while the worker runs."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from hordelib.job.params import GenerationParams
from tests.support.owner import PROJECT, wait_for
from worker.clock import elapsed_seconds
from worker.horde.api import slots_of
from worker.horde.kinds import Kind
from worker.jobs.journal import Journal
from worker.jobs.ledger import Ledger
from worker.jobs.results import ImageEnd, JobStage
from worker.jobs.status import Obstacle, ObstacleKind
from worker.service.logs import set_up_logging
from worker.service.terminal import make_console, make_display


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
    journal.popped(slots_of(("a-long-job-id",), ("",), elapsed_seconds() + 60), "demo")
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


@pytest.mark.parametrize("columns", [None, 120], ids=["lines", "live"])
def test_other_kinds_of_work_are_told_beside_pictures(
    columns: int | None, capsys: pytest.CaptureFixture[str]
):
    journal, screen = Journal(Ledger(None)), Screen()
    forms = journal.of(Kind.form)
    with make_display(screen.console if columns else make_console(), journal) as view:
        forms.popped(slots_of(("a",), ("",), elapsed_seconds() + 60), "palette")
        forms.ended("a", "a", ImageEnd(JobStage.submitted, 3.0))
        view.refresh()
    assert "| forms 1, kudos 3.00" in screen.news() + capsys.readouterr().out


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


STRANGE_NAMES = (
    "日本\u3000風景" * 30,
    "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645" * 10,
    "rig \U0001f469\u200d\U0001f3a8 " * 20,
    "e" + "\u0301" * 60,
    "\U0001f1e9\U0001f1ea" * 20,
    "\x1b[2J\x1b]0;another title\x07 \x9b5A \r\n\t\b x",
    "a\u200b\u200b\ufeffb" * 20,
    "\u2764\ufe0f" * 20,
    "\ufdfd" * 10,
    "\u202eturned",
)
SHOW = """
import time
from pydantic import TypeAdapter
from tests.worker.service.test_terminal import STRANGE_NAMES
from worker.horde.api import slots_of
from worker.jobs.journal import Journal
from worker.jobs.ledger import Ledger
from worker.jobs.status import Obstacle, ObstacleKind
from worker.net.untrusted import Name, Remark
from worker.service.terminal import make_console, make_display

journal, name, remark = Journal(Ledger(None)), TypeAdapter(Name), TypeAdapter(Remark)
for number, text in enumerate(STRANGE_NAMES):
    slots = slots_of((f"id-{number}",), ("",), float("inf"))
    journal.popped(slots, name.validate_python(text[:200]))
with make_display(make_console(), journal) as view:
    for text in (*STRANGE_NAMES, "the end"):
        journal.say(Obstacle(remark.validate_python(text), ObstacleKind.maintenance))
        view.refresh()
    time.sleep(60)
"""


@pytest.mark.skipif(not shutil.which("tmux"), reason="needs tmux")
@pytest.mark.parametrize("columns", [60, 120])
def test_a_real_terminal_shows_strange_names_a_row_each(tmp_path: Path, columns: int):
    tmux = ("tmux", "-u", "-f", os.devnull, "-S", str(tmp_path / "socket"))
    (tmp_path / "show.py").write_text(SHOW, "utf-8")
    env = {**os.environ, "PYTHONPATH": str(PROJECT), "PYTHONUTF8": "1"}
    env.pop("COLUMNS", "")  # it would have the last word on how wide the terminal is
    size = ("-x", str(columns), "-y", "40")
    command = (sys.executable, "-P", "show.py")
    subprocess.run([*tmux, "new-session", "-d", *size, *command], cwd=tmp_path, env=env, check=True)
    asked = [*tmux, "display", "-p", "#{pane_title}", ";", "capture-pane", "-p", "-S", "-"]

    def told() -> str:
        return subprocess.run(asked, capture_output=True, check=True).stdout.decode()

    try:
        wait_for(lambda: "the end" in told(), 60)
        title, *lines = told().splitlines()
    finally:
        subprocess.run([*tmux, "kill-server"], check=True)
    assert "another title" not in title
    assert len([line for line in lines if line.rstrip(" …").endswith(("poppe", "popped"))]) == 10
    assert len([line for line in lines if "sampler" in line]) == 1
    assert len([line for line in lines if "the end" in line]) == 1


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
