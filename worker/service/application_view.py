"""Runs the Textual application in the thread that serves, between its looks at everything else."""

from __future__ import annotations

import asyncio
import io
import logging
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

from rich.console import Console

from worker.children.signals import StopSignals
from worker.jobs.journal import Journal
from worker.net.untrusted import one_line
from worker.service.application import Hands, LogLines, Moment, WorkerApplication
from worker.service.logs import LogWay, is_plain
from worker.service.machine import Machine, MachineReading
from worker.service.orders import STARTING
from worker.service.overview import Overview, overview_of
from worker.service.pauses import Pauses
from worker.service.terminal import PLAIN_SECONDS, Display, PlainView, last_line

END_SECONDS = 5.0  # for the application to give the terminal back
LAST_LINES = 8  # of the log, which stay on the terminal at the end
READ_SECONDS = 5.0  # between two readings of the machine


def has_whole_terminal() -> bool:
    """Whether keys can be read and the screen be drawn: Textual draws on standard error."""
    streams = (sys.__stdin__, sys.__stdout__, sys.__stderr__)
    return all(each is not None and each.isatty() for each in streams)


class _Printed(io.TextIOBase):
    """What anything prints becomes lines of the log; its file is still the terminal's."""

    def __init__(self, lines: LogLines):
        self._lines = lines

    def write(self, text: str, /) -> int:
        for line in filter(None, map(one_line, text.splitlines())):
            self._lines.new.append((logging.INFO, line))
        return len(text)

    def fileno(self) -> int:
        return 2


@dataclass(frozen=True, slots=True)
class Shown:
    """What a display is about."""

    journal: Journal
    pauses: Pauses
    signals: StopSignals
    models: Callable[[], Sequence[str]]
    machine: Machine


def make_display(
    console: Console,
    shown: Shown,
    plain_seconds: float = PLAIN_SECONDS,
    way: LogWay = LogWay.auto,
) -> Display:
    """The application on a terminal, else lines at most every `plain_seconds`."""
    if is_plain(console, way) or not has_whole_terminal():
        return PlainView(shown.journal, plain_seconds, way)
    return ApplicationView(shown)


class ApplicationView:
    """A Display. While it is there, log lines go to the application and not to the screen."""

    def __init__(self, shown: Shown):
        pauses, signals = shown.pauses, shown.signals
        self._journal, self._pauses, self._signals = shown.journal, pauses, signals
        self._models = shown.models
        self._machine = shown.machine
        self._lines = LogLines()
        self._application = WorkerApplication(
            Hands(
                pauses.pause,
                pauses.resume,
                pauses.drain,
                lambda: signals.came(signal.SIGINT),
            ),
            self._lines,
        )
        self._loop = asyncio.new_event_loop()
        self._task: asyncio.Task[None] | None = None
        self._screens: list[logging.Handler] = []
        self._reading: MachineReading | None = None
        self._read_at = -READ_SECONDS

    def refresh(self) -> None:
        if self._is_running and self._application.output.is_gone:
            self._end()  # else it would read for ever what no terminal says
            sys.stdout = sys.stderr = _Printed(self._lines)  # a print would fail
        if self._is_running:
            self._application.show(self._moment())
            self._run(0.01)

    def nap(self, signals: StopSignals, seconds: float) -> None:
        """The application goes on meanwhile."""
        if self._is_running:
            self._run(seconds)
            signals.nap(0)
        else:
            signals.nap(seconds)

    def __enter__(self) -> Self:
        root = logging.getLogger()
        self._screens = [each for each in root.handlers if type(each).__name__ == "RichHandler"]
        for handler in self._screens:
            root.removeHandler(handler)
        root.addHandler(self._lines)
        self._task = self._loop.create_task(self._application.run_async())
        begun = time.monotonic()
        while self._is_running and not self._application.is_drawn:
            if time.monotonic() > begun + END_SECONDS:
                break
            self._run(0.05)
        if self._is_running:  # Textual's own streams have no file, which child processes ask for
            sys.stdout = sys.stderr = _Printed(self._lines)
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self._is_running:
                self._end()
            self._loop.close()
            self._application.output.close()
        finally:
            root = logging.getLogger()
            root.removeHandler(self._lines)
            for handler in self._screens:
                root.addHandler(handler)
        with suppress(OSError):
            for line in self._application.last_lines(LAST_LINES):
                print(line)
            print(last_line(self._journal), flush=True)

    def _end(self) -> None:
        self._application.exit()
        with suppress(TimeoutError, OSError):
            self._loop.run_until_complete(asyncio.wait_for(self._ended(), END_SECONDS))

    @property
    def _is_running(self) -> bool:
        return self._task is not None and not self._task.done()

    async def _ended(self) -> None:
        if self._task is not None:
            with suppress(Exception):  # Textual has shown what went wrong within it
                await self._task

    def _run(self, seconds: float) -> None:
        self._loop.run_until_complete(self._wait(seconds))

    async def _wait(self, seconds: float) -> None:
        rung = asyncio.Event()
        self._loop.add_reader(self._signals.fileno(), rung.set)
        try:
            async with asyncio.timeout(seconds):
                await rung.wait()
        except TimeoutError:
            pass
        finally:
            self._loop.remove_reader(self._signals.fileno())

    def _moment(self) -> Moment:
        view = self._journal.view()
        told = self._pauses.orders.answered() or Overview(doing=STARTING)
        overview = overview_of(
            view,
            told.doing,
            told.why,
            began=told.began or time.time(),
            models=self._models(),
            pauses=self._pauses.reasons,
        )
        return Moment(overview.beside(told.others, told.devices), view, self._read())

    def _read(self) -> MachineReading:
        if self._reading is None or time.monotonic() >= self._read_at + READ_SECONDS:
            self._read_at = time.monotonic()
            self._reading = self._machine.read()
        return self._reading
