"""What `run` shows on a terminal: an application with state, jobs, memory, curves and log."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Horizontal, Vertical
from textual.driver import Driver
from textual.events import Resize
from textual.screen import ModalScreen
from textual.widgets import DataTable, Footer, RichLog, Sparkline, Static

from worker.jobs.results import ENDS, GIVEN_BACK
from worker.jobs.status import JobRow, StatusView
from worker.net.untrusted import one_line
from worker.service.machine import CardReading, MachineReading, Room
from worker.service.overview import JobOverview, Overview
from worker.service.terminal_output import TerminalOutput, patient

LEAST_COLUMNS, LEAST_ROWS = 80, 24
SHOWN_JOBS = 30
MINUTES = 60  # of the curves
KEPT_LINES = 2000
_LEVELS = (logging.INFO, logging.WARNING, logging.ERROR)
_STYLES = {logging.WARNING: "yellow", logging.ERROR: "bold red", logging.CRITICAL: "bold red"}
_COLUMNS = ("job", "model", "size", "state", "step", "seconds left", "kudos")
_WIDEST = (8, 24, 11, 60, 9, 12, 9)  # characters of each of these columns
_HELP = """\
p  pause: finish the jobs in hand, then free the graphics card
r  resume: serve again
d  drain: finish the jobs in hand, then end
q  stop within the seconds of stop_timeout; q again stops at once
m  the models that are offered
l  the log: all lines, warnings and errors, or errors alone
?  this help

A wheel or the arrow keys scroll, Tab goes from the jobs to the log.
Shift and the mouse select text, as your terminal does it.
"""


@dataclass(frozen=True, slots=True)
class Hands:
    """What the keys do."""

    pause: Callable[[], None]
    resume: Callable[[], None]
    drain: Callable[[], None]
    stop: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Moment:
    """All that is shown."""

    overview: Overview
    view: StatusView
    machine: MachineReading


@dataclass
class LogLines(logging.Handler):
    """The newest lines of the log, which any thread may write; the application takes them."""

    new: deque[tuple[int, str]] = field(default_factory=lambda: deque(maxlen=KEPT_LINES))

    def __post_init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S"))

    __hash__ = logging.Handler.__hash__

    def emit(self, record: logging.LogRecord) -> None:
        self.new.append((record.levelno, self.format(record)))


class _Told(ModalScreen[None]):
    """A text above all else, until a key is pressed."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,enter,space,q,m,question_mark", "dismiss", "close")
    ]

    def __init__(self, title: str, text: str):
        super().__init__()
        self._title, self._text = title, text

    def compose(self) -> ComposeResult:
        with Vertical(id="told") as box:
            box.border_title = self._title
            box.border_subtitle = "Esc closes this"
            box.can_focus = True
            yield Static(Text(self._text))

    def on_click(self) -> None:
        self.dismiss()


class WorkerApplication(App[None]):
    """Shows the latest Moment that it was given by `show`."""

    TITLE = "Dreamer"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("p", "do('pause')", "pause"),
        Binding("r", "do('resume')", "resume"),
        Binding("d", "do('drain')", "drain"),
        Binding("q", "do('stop')", "stop"),
        Binding("ctrl+c,ctrl+q", "do('stop')", "stop", show=False, priority=True),
        Binding("m", "models", "models"),
        Binding("l", "level", "log level"),
        Binding("question_mark", "help", "help", key_display="?"),
    ]
    CSS = """
    #state { height: auto; max-height: 4; padding: 0 1; text-style: bold; }
    #figures { height: auto; max-height: 11; padding: 0 1; }
    #curves { height: 3; }
    .curve { width: 1fr; padding: 0 1; }
    .curve Sparkline { height: 2; }
    #jobs { height: 1fr; min-height: 4; }
    #log { height: 1fr; min-height: 4; border-top: solid $primary; }
    #small { display: none; padding: 1; }
    .small #all { display: none; }
    .small Footer { display: none; }
    .small #small { display: block; }
    _Told { align: center middle; }
    #told { width: 78; height: auto; max-height: 90%; border: round $primary; padding: 0 1;
            overflow-y: auto; }
    """

    def __init__(self, hands: Hands, lines: LogLines):
        self.output = TerminalOutput(2)  # Textual draws on standard error
        super().__init__()
        self._hands, self._lines = hands, lines
        self._moment: Moment | None = None
        self._kept: deque[tuple[int, str]] = deque(maxlen=KEPT_LINES)
        self._level = logging.INFO
        self.is_drawn = False
        self._jobs, self._log_lines = DataTable[Text](), RichLog()
        self._images, self._kudos = _Curve(), _Curve()

    def get_driver_class(self) -> type[Driver]:
        return patient(super().get_driver_class(), self.output)

    def compose(self) -> ComposeResult:
        with Container(id="all"):
            yield Static("The worker is starting.", id="state", markup=False)
            yield Static(id="figures", markup=False)
            with Horizontal(id="curves"):
                for name in ("images", "kudos"):
                    with Vertical(classes="curve"):
                        yield Static(f"{name} a minute, the last hour")
                        yield Sparkline([0.0], id=f"{name}-curve", summary_function=max)
            self._jobs = DataTable[Text](id="jobs", cursor_type="row", zebra_stripes=True)
            self._jobs.add_columns(*_COLUMNS)
            yield self._jobs
            self._log_lines = RichLog(id="log", max_lines=KEPT_LINES, wrap=True)
            self._log_lines.border_title = "log"
            yield self._log_lines
        yield Static(id="small", markup=False)
        yield Footer()

    def on_mount(self) -> None:
        self.is_drawn = True
        self.set_interval(0.25, self._take_lines)
        self._draw()

    def on_resize(self, event: Resize) -> None:
        columns, rows = event.size
        is_small = columns < LEAST_COLUMNS or rows < LEAST_ROWS
        self.screen_stack[0].set_class(is_small, "small")
        self.screen_stack[0].query_one("#small", Static).update(
            f"This terminal has {columns} x {rows} characters, and {LEAST_COLUMNS} x {LEAST_ROWS}"
            " are needed. Please make it larger. The worker goes on meanwhile; q stops it."
        )

    def show(self, moment: Moment) -> None:
        """To be called by the thread that runs the application's loop."""
        self._images.add(moment.view.images_done)
        self._kudos.add(moment.view.kudos)
        self._moment = moment
        if self.output.has_dropped and not self.output.is_stopped:
            self.output.has_dropped = False
            self.refresh(layout=True)
        if self.is_drawn:
            self._draw()

    def last_lines(self, count: int) -> list[str]:
        """Of the log, oldest first; whether or not they were drawn."""
        lines = [line for _, line in (*self._kept, *self._lines.new)]
        return lines[-count:]

    def action_do(self, what: str) -> None:
        getattr(self._hands, what)()

    def action_models(self) -> None:
        models = self._moment.overview.models if self._moment else ()
        told = "\n".join(map(one_line, models)) or "No model is offered yet."
        self.push_screen(_Told("models that are offered", told))

    def action_help(self) -> None:
        self.push_screen(_Told("keys", _HELP))

    def action_level(self) -> None:
        self._level = _LEVELS[(_LEVELS.index(self._level) + 1) % len(_LEVELS)]
        log = self._log_lines
        told = {logging.INFO: "log", logging.WARNING: "log: warnings and errors"}
        log.border_title = told.get(self._level, "log: errors")
        log.clear()
        for line in self._kept:
            self._write(log, *line)

    def _take_lines(self) -> None:
        while self._lines.new:
            line = self._lines.new.popleft()
            self._kept.append(line)
            self._write(self._log_lines, *line)

    def _write(self, log: RichLog, level: int, line: str) -> None:
        if level >= self._level:
            log.write(Text(line, _STYLES.get(level, "")))

    def _draw(self) -> None:
        moment, screen = self._moment, self.screen_stack[0]
        if moment is None:
            return
        screen.query_one("#state", Static).update(_state(moment.overview))
        screen.query_one("#figures", Static).update(_figures(moment))
        screen.query_one("#images-curve", Sparkline).data = self._images.minutes()
        screen.query_one("#kudos-curve", Sparkline).data = self._kudos.minutes()
        jobs = self._jobs
        top = jobs.scroll_y
        jobs.clear()
        over = [row for row in moment.view.rows if row.stage in ENDS]
        for cells in [*map(_in_hand, moment.overview.jobs), *map(_over, reversed(over))][
            :SHOWN_JOBS
        ]:
            jobs.add_row(*map(_cell, cells, _WIDEST))
        if not jobs.row_count:
            jobs.add_row(Text(), Text("no job yet"), *(len(_COLUMNS) - 2) * (Text(),))
        jobs.scroll_y = top


def _cell(text: str, widest: int) -> Text:
    """On one line: a name of any length hides no other column."""
    shown = Text(one_line(text), no_wrap=True)
    shown.truncate(widest, overflow="ellipsis")
    return shown


class _Curve:
    """How much a total grew in each of the last minutes."""

    def __init__(self) -> None:
        self._totals: deque[tuple[int, float]] = deque(maxlen=MINUTES + 1)

    def add(self, total: float) -> None:
        minute = int(time.monotonic() // 60)
        if self._totals and self._totals[-1][0] == minute:
            self._totals.pop()
        self._totals.append((minute, total))

    def minutes(self) -> list[float]:
        totals = [0.0, *(total for _, total in self._totals)]
        grown = [max(0.0, later - sooner) for sooner, later in pairwise(totals)]
        return [*(MINUTES - len(grown)) * [0.0], *grown][-MINUTES:]


def _state(overview: Overview) -> str:
    why = f": {overview.why}" if overview.why else ""
    return one_line(f"The worker is {overview.doing}{why}", 400)


def _figures(moment: Moment) -> str:
    view, machine = moment.view, moment.machine
    failed = f", {view.images_failed} failed" if view.images_failed else ""
    speed = view.seconds_per_image
    took = f", {speed:.1f} s an image" if speed is not None else ""
    disk = f"   disk {_room(machine.disk)}" if machine.disk else ""
    lines = (
        f"{view.images_done} images{failed}, {view.kudos:.2f} kudos{took}",
        *(f"{other.kind}s: {other.figures}" for other in moment.overview.others),
        f"memory {_room(machine.memory)}{disk}",
        *_cards(moment),
    )
    return "\n".join(filter(None, lines))


def _cards(moment: Moment) -> Iterator[str]:
    """What the driver says of each; where there are several, also what each does."""
    read = {card.uuid: card for card in moment.machine.cards}
    devices = moment.overview.devices
    if len(devices) < 2:
        yield from map(_card, read.values())
        return
    for device in devices:
        card = read.get(device.uuid)
        told = f"{device.name}: {device.words}"
        yield one_line(f"{told}   {_card(card)}" if card else told, 400)


def _card(card: CardReading) -> str:
    """Its memory, and what else it tells of itself."""
    told = (
        ("load", card.load_percent, " %"),
        ("temperature", card.celsius, " °C"),
        ("power", card.watts, " W"),
    )
    more = [f"{name} {value:.0f}{unit}" for name, value, unit in told if value is not None]
    return "   ".join((f"card memory {_room(card.memory)}", *more))


def _room(room: Room) -> str:
    gib = 1 << 30
    return f"{room.free_bytes / gib:.1f} of {room.total_bytes / gib:.1f} GiB free"


def _in_hand(job: JobOverview) -> tuple[str, ...]:
    size = f"{job.width}x{job.height}" if job.width else ""
    step = f"{job.step}/{job.steps}" if job.steps else ""
    left = f"{job.seconds_left:.0f}" if job.seconds_left is not None else ""
    kudos = f"~{job.kudos:.0f}" if job.kudos else ""
    return job.id[:8], job.model, size, job.stage, step, left, kudos


def _over(row: JobRow) -> tuple[str, ...]:
    size = f"{row.params.width}x{row.params.height}" if row.params else ""
    stage = "given back" if row.reason in GIVEN_BACK else row.stage.value
    why = f": {row.reason}" if row.reason else ""
    kudos = f"{row.kudos:.2f}" if row.kudos else ""
    return row.job_id[:8], row.model, size, f"{stage}{why}", "", "", kudos
