"""The lines of a log where nothing is drawn: for people, and for programs."""

from __future__ import annotations

import json
import logging
import re
from datetime import datetime
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from worker.jobs.journal import Journal
from worker.jobs.ledger import Ledger
from worker.service.logs import LogWay, is_plain, open_log, screen_handler
from worker.service.terminal import PlainView, make_console


def test_a_plain_line_has_its_time_and_level_once(capsys: pytest.CaptureFixture[str]):
    record = logging.LogRecord("worker.x", logging.WARNING, "", 0, "it is %s", ("late",), None)
    screen_handler(make_console(StringIO())).handle(record)
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d WARNING it is late\n", capsys.readouterr().err
    )


def test_statistics_are_lines_like_all_others(capsys: pytest.CaptureFixture[str]):
    with PlainView(Journal(Ledger(None))):
        pass
    assert re.fullmatch(r"\d{4}-\S+ \S+ INFO    queue 0 \| .*\n", capsys.readouterr().out)


@pytest.mark.parametrize("way", [LogWay.plain, LogWay.json])
def test_plain_lines_are_written_on_a_terminal_too(way: LogWay, capsys: pytest.CaptureFixture[str]):
    drawn = StringIO()
    console = Console(file=drawn, force_terminal=True, _environ={})
    assert is_plain(console, way)
    assert not is_plain(console, LogWay.auto)
    with PlainView(Journal(Ledger(None)), way=way) as view:
        view.refresh()
    (line,) = capsys.readouterr().out.splitlines()
    assert drawn.getvalue() == ""
    assert "queue 0" in line
    if way is LogWay.json:
        told = json.loads(line)
        assert told["level"] == "INFO"
        assert datetime.fromisoformat(told["time"]).tzinfo is not None


def test_the_file_is_rotated_by_its_size(tmp_path: Path):
    file = open_log(tmp_path / "logs" / "dreamer.log")
    file.maxBytes = 1000
    for number in range(100):
        file.handle(logging.LogRecord("x", logging.INFO, "", 0, f"{number:0100}", (), None))
    file.close()
    kept = sorted((tmp_path / "logs").iterdir())
    assert [each.name for each in kept] == ["dreamer.log", *(f"dreamer.log.{n}" for n in (1, 2, 3))]
    assert all(each.stat().st_size <= 1000 for each in kept)
