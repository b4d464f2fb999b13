"""What the owner sees: a live view in a terminal, plain lines elsewhere, and tables."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Protocol, Self, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.segment import Segments
from rich.table import Table
from rich.text import Text

from worker.children.signals import StopSignals
from worker.horde.kinds import Kind
from worker.jobs.journal import Journal
from worker.jobs.ledger import Totals
from worker.jobs.results import ENDS, JobStage
from worker.jobs.status import JobRow, StatusView
from worker.net.untrusted import one_line
from worker.service.logs import LogWay, is_plain, line_formatter

LIVE_ROWS = 10
PLAIN_SECONDS = 2.0  # between plain lines while something moves
REDRAWN_SECONDS = 10.0  # the live view, where nothing has changed: something else may lie over it
PLAIN_COLUMNS = 140
WIDTH = 22  # of what stands before a value, in the lines of `status`

_STYLES = {
    JobStage.popped: "dim",
    JobStage.reading: "dim",
    JobStage.waiting: "dim",
    JobStage.running: "cyan",
    JobStage.encoding: "blue",
    JobStage.judging: "blue",
    JobStage.delivering: "blue",
    JobStage.submitted: "green",
    JobStage.faulted: "red",
    JobStage.given_up: "yellow",
}


def make_console(
    file: TextIO | None = None, *, columns: int = PLAIN_COLUMNS, soft_wrap: bool = False
) -> Console:
    """Where everything is shown as it is: brackets and colons in it, which strangers may have
    written, are no orders to rich.

    `file`: standard output by default. Where it is no terminal, lines have so many columns.
    """
    out: TextIO = sys.stdout if file is None else file
    return Console(
        file=out,
        width=None if out.isatty() else columns,
        soft_wrap=soft_wrap,
        markup=False,
        emoji=False,
        highlight=False,
    )


class Display(Protocol):
    """A picture of the journal that `refresh` brings up to date; a context manager."""

    def refresh(self) -> None: ...
    def nap(self, signals: StopSignals, seconds: float) -> None:
        """Until the next signal, but no longer."""
        ...

    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...


def make_display(
    console: Console,
    journal: Journal,
    plain_seconds: float = PLAIN_SECONDS,
    *,
    way: LogWay = LogWay.auto,
) -> Display:
    """The live view where `console` is a terminal, else lines at most every `plain_seconds`.

    0 seconds: no lines but the last one.
    """
    if is_plain(console, way):
        return PlainView(journal, plain_seconds or math.inf, line_formatter(way))
    return LiveView(console, journal)


class LiveView:
    """Redrawn in place where something has changed; log lines scroll above it."""

    def __init__(self, console: Console, journal: Journal):
        self._journal = journal
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._shown: object = None
        self._drawn_at = -math.inf
        self._table = _LaidOutTable(console)

    def refresh(self) -> None:
        view, now = self._journal.view(), time.monotonic()
        others = self._journal.views_beside()
        shows = view, others, self._console.size
        if shows == self._shown and now - self._drawn_at < REDRAWN_SECONDS:
            return
        table = self._table.of(view.rows[-LIVE_ROWS:])
        with suppress(OSError):
            self._live.update(_picture(table, view, others), refresh=True)
            self._shown, self._drawn_at = shows, now

    def nap(self, signals: StopSignals, seconds: float) -> None:
        signals.nap(seconds)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()
        self._live.console.print(Text(last_line(self._journal)))


class _LaidOutTable:
    """The table of jobs, which takes milliseconds to lay out: not done anew with each step."""

    def __init__(self, console: Console):
        self._console = console
        self._told: object = None
        self._laid_out = Segments(())

    def of(self, rows: tuple[JobRow, ...]) -> RenderableType:
        told = self._console.size, [replace(row, step=0, steps=0) for row in rows]
        if told != self._told:
            self._laid_out = Segments([*self._console.render(jobs_table(rows))])
            self._told = told
        return self._laid_out


class PlainView:
    """A line when something has changed, not more often than asked; for logs and pipes."""

    def __init__(self, journal: Journal, seconds: float, lines: logging.Formatter):
        self._journal = journal
        self._seconds = seconds
        self._lines = lines
        self._last_line: str = ""
        self._last_time = 0.0

    def refresh(self) -> None:
        if time.monotonic() - self._last_time < self._seconds:
            return
        line = last_line(self._journal)
        if line != self._last_line:
            with suppress(OSError):  # whoever read it is gone, or the disk is full: serve on
                print(self._lines.format(_record(line)), flush=True)
            self._last_line, self._last_time = line, time.monotonic()

    def nap(self, signals: StopSignals, seconds: float) -> None:
        signals.nap(seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._last_time = -math.inf
        self.refresh()


def _record(line: str) -> logging.LogRecord:
    """A line of statistics has its time and level as every other line has."""
    return logging.LogRecord("worker.status", logging.INFO, "", 0, "%s", (line,), None)


Others = Sequence[tuple[Kind, StatusView]]


def last_line(journal: Journal) -> str:
    """All kinds of work on one line."""
    return status_line(journal.view(), journal.views_beside())


def status_line(view: StatusView, others: Others = ()) -> str:
    """Queue, current step, images, kudos and speed, and what other kinds of work came to, on one
    line."""
    parts = [f"queue {view.waiting}", _activity(view), f"images {view.images_done}"]
    if view.images_failed:
        parts.append(f"failed {view.images_failed}")
    if view.lost_pops:
        parts.append(f"answers lost {view.lost_pops}")
    parts.append(f"kudos {view.kudos:.2f}")
    if view.seconds_per_image is not None:
        parts.append(f"{view.seconds_per_image:.2f} s/image")
    for kind, other in others:
        failed = f", {other.images_failed} failed" if other.images_failed else ""
        parts.append(f"{kind}s {other.images_done}{failed}, kudos {other.kudos:.2f}")
    return " | ".join(parts)


PROMPT_COLUMNS = 48  # of the terminal; a prompt may be any length


def jobs_table(rows: tuple[JobRow, ...]) -> Table:
    """One row per job: what was asked, how long it took, how it ended."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("prompt", "size", "seed", "sampler", "images", "seconds", "kudos", "state"):
        numeric = heading in ("seed", "images", "seconds", "kudos")
        justify = "right" if numeric else "left"
        widest = PROMPT_COLUMNS if heading == "prompt" else None
        is_fixed = heading not in ("prompt", "state")  # which are cut where a terminal is narrow
        table.add_column(heading, justify=justify, no_wrap=is_fixed, max_width=widest)
    for row in rows:
        table.add_row(*_cells(row))
    return table


def print_totals(console: Console, totals: Totals) -> None:
    """What the ledger has counted since it was begun, a line each."""
    for end in ENDS:
        console.print(f"{_ENDS_TOLD[end] + ':':{WIDTH}}{totals.images.get(end, 0)} images")
    console.print(f"{'in hand:':{WIDTH}}{totals.open} images")
    console.print(f"{'kudos:':{WIDTH}}{totals.kudos:.2f}")
    if totals.lost_pops:
        told = f"{totals.lost_pops}; they may have contained jobs"
        console.print(f"{'lost answers:':{WIDTH}}{told}")


_ENDS_TOLD = {
    JobStage.submitted: "submitted",
    JobStage.faulted: "failed or given back",
    JobStage.given_up: "no longer wanted",
}


def _picture(table: RenderableType, view: StatusView, others: Others) -> RenderableType:
    line = Text(status_line(view, others), style="bold")
    return Group(Text(""), table, Text(""), _progress(view.running), line)


def _progress(running: JobRow | None) -> RenderableType:
    if running is None:
        return Text("")
    bar = Table.grid()
    bar.add_row(ProgressBar(total=max(running.steps, 1), completed=running.step, width=60))
    return bar


def _activity(view: StatusView) -> str:
    running = view.running
    if running is None:
        delivering = view.count(JobStage.encoding, JobStage.judging, JobStage.delivering)
        return view.obstacle.told or ("delivering" if delivering else "idle")
    steps = f"step {running.step}/{running.steps}" if running.steps else "starting"
    silence = f", silent for {view.silent_seconds:.0f} s" if view.silent_seconds else ""
    return f"{running.job_id[:8]} {steps}{_expected(running)}{silence}"


def _expected(row: JobRow) -> str:
    """What the job will take and bring, as far as that is known."""
    seconds = f", about {row.expected_seconds:.1f} s" if row.expected_seconds else ""
    kudos = f", ~{row.expected_kudos:.0f} kudos (estimate)" if row.expected_kudos else ""
    return seconds + kudos


def _cells(row: JobRow) -> list[RenderableType]:
    reason = f": {row.reason}" if row.reason else ""
    state = _cut(row.stage.value + reason, _STYLES[row.stage])
    seconds = f"{row.seconds:.1f}" if row.seconds else ""
    kudos = f"{row.kudos:.2f}" if row.kudos else ""
    if row.params is None:
        return [_cut(row.model), "", "", "", str(len(row.slots)), seconds, kudos, state]
    params = row.params
    return [
        _cut(one_line(params.prompt)),
        f"{params.width}x{params.height}",
        str(params.seed),
        params.sampler.name,
        str(len(row.slots)),
        seconds,
        kudos,
        state,
    ]


def _cut(text: str, style: str = "") -> Text:
    """On one line, as long as there is room."""
    return Text(text, style, overflow="ellipsis", no_wrap=True)
