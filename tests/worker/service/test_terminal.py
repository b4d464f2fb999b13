"""What the owner sees in a terminal while the worker runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from io import StringIO

import pytest
from rich.console import Console

from hordelib.job.params import GenerationParams
from worker.jobs.results import ImageEnd, JobState
from worker.jobs.status import Board, JobRow
from worker.service.terminal import board_view


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
def board() -> Board:
    """One job at work."""
    board = Board()
    prompt = "a red circle in the very middle of a plain blue background"
    params = GenerationParams(prompt=prompt, width=512, height=768, steps=20)
    board.add(JobRow("a-long-job-id", "demo", 1, params))
    board.running("a-long-job-id")
    return board


def test_the_live_view_is_drawn_anew_where_something_has_changed(board: Board):
    screen = Screen()
    with board_view(screen.console, board) as view:
        view.refresh()
        first = screen.news()
        assert "a red circle" in first
        assert "512x768" in first
        view.refresh()
        assert screen.news() == ""
        board.stepped("a-long-job-id", 5, 20)
        view.refresh()
        stepped = screen.news()
        assert "step 5/20" in stepped
        assert "a red circle" in stepped
        board.over("a-long-job-id", [ImageEnd(JobState.submitted, 12.5)])
        view.refresh()
        over = screen.news()
        assert "submitted" in over
        assert "12.50" in over


def test_the_live_view_fits_a_terminal_that_was_made_narrower(board: Board):
    screen = Screen(columns=120)
    with board_view(screen.console, board) as view:
        view.refresh()
        screen.news()
        screen.console.width = 80
        view.refresh()
        last_columns = [line.rstrip()[-7:] for line in screen.news().splitlines()]
    assert "state" in [each.split()[-1] for each in last_columns if each.split()]
    assert "running" in last_columns


def test_the_live_view_is_drawn_again_after_a_while(board: Board, monkeypatch: pytest.MonkeyPatch):
    screen = Screen()
    with board_view(screen.console, board) as view:
        view.refresh()
        screen.news()
        monkeypatch.setattr("worker.service.terminal.REDRAWN_SECONDS", 0.0)
        view.refresh()
        assert "a red circle" in screen.news()
