"""What the owner sees in a terminal while the worker runs."""

from __future__ import annotations

import logging
from io import StringIO
from pathlib import Path

import pytest
from rich.table import Table

from tests.support.owner import PROJECT
from worker.clock import elapsed_seconds
from worker.horde.api import slots_of
from worker.horde.kinds import Kind
from worker.jobs.journal import Journal
from worker.jobs.ledger import Ledger
from worker.jobs.results import ImageEnd, JobStage
from worker.service.logs import set_up_logging
from worker.service.terminal import PlainView, make_console


def test_other_kinds_of_work_are_told_beside_pictures(capsys: pytest.CaptureFixture[str]):
    journal = Journal(Ledger(None))
    forms = journal.of(Kind.form)
    with PlainView(journal) as view:
        forms.popped(slots_of(("a",), ("",), elapsed_seconds() + 60), "palette")
        forms.ended("a", "a", ImageEnd(JobStage.submitted, 3.0))
        view.refresh()
    assert "| forms 1, kudos 3.00" in capsys.readouterr().out


HOSTILE = ["on hold: back at [/5pm]", "skipped: [/x] 3", "[bold", ":warning: [link=file:///x]"]


@pytest.mark.parametrize("said", HOSTILE)
def test_what_strangers_write_is_shown_as_it_is(said: str):
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
