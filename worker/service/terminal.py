"""What the owner sees where nothing is drawn: plain lines, and tables."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Protocol, Self, TextIO

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from worker.children.signals import StopSignals
from worker.horde.kinds import Kind
from worker.jobs.journal import Journal
from worker.jobs.results import ENDS, JobStage
from worker.jobs.status import JobRow, StatusView
from worker.jobs.totals import Totals
from worker.net.untrusted import one_line
from worker.service.logs import LogWay, line_formatter

PLAIN_SECONDS = 2.0  # between plain lines while something moves
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


class PlainView:
    """A line when something has changed, not more often than asked; for logs and pipes.

    0 seconds: no lines but the last one.
    """

    def __init__(
        self, journal: Journal, seconds: float = PLAIN_SECONDS, way: LogWay = LogWay.plain
    ):
        self._journal = journal
        self._seconds = seconds or math.inf
        self._lines = line_formatter(way)
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
        told = counted({kind: each.ends.get(end, 0) for kind, each in totals.seen.items()})
        console.print(f"{_ENDS_TOLD[end] + ':':{WIDTH}}{told}")
    told = counted({kind: each.open for kind, each in totals.seen.items()})
    console.print(f"{'in hand:':{WIDTH}}{told}")
    each_kudos = (f"{each.kudos:.2f} for {kind}s" for kind, each in totals.seen.items())
    apart = f" ({', '.join(each_kudos)})" if len(totals.seen) > 1 else ""
    console.print(f"{'kudos:':{WIDTH}}{totals.kudos:.2f}{apart}")
    if totals.lost_pops:
        told = f"{totals.lost_pops}; they may have contained jobs"
        console.print(f"{'lost answers:':{WIDTH}}{told}")


def counted(numbers: Mapping[Kind, int]) -> str:
    """So many of each kind: "2 images, 1 form"."""
    return ", ".join(f"{number} {kind}{'s' * (number != 1)}" for kind, number in numbers.items())


_ENDS_TOLD = {
    JobStage.submitted: "submitted",
    JobStage.faulted: "failed or given back",
    JobStage.given_up: "no longer wanted",
}


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
