"""What its owner tells a running worker from another terminal: pause, resume, drain.

An order is a file in the state folder, so there is no port or socket that anybody else could use.
The worker answers with another file: an overview of what it is doing.
"""

from __future__ import annotations

from contextlib import suppress
from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict, FiniteFloat, ValidationError

from hordelib.files.whole_files import write_whole
from worker.service.overview import Overview, read_overview

_ORDER, _ANSWER = "order", "doing"
STARTING, SERVING, MAINTENANCE, ENDED = "starting", "serving", "in maintenance", "ended"
WAITING = "waiting"  # for its owner, at its page


class Order(StrEnum):
    serve = "serve"
    pause = "pause"
    """Take no more jobs, free the device. Outlives the worker's process."""
    drain = "drain"
    """Finish what is in hand, then end."""
    stop = "stop"
    """End within the seconds of `stop_timeout`, as at a signal."""
    restart = "restart"
    """Finish what is in hand, then begin anew with what bridgeData.yaml says."""


OF_ONE_LIFE = (Order.drain, Order.stop, Order.restart)


class Given(BaseModel):
    """An order with what belongs to it."""

    model_config = ConfigDict(frozen=True)

    order: Order
    until: FiniteFloat | None = None
    """Of a pause, in seconds since 1970 UTC; None lasts until another order."""
    is_span: bool = False
    """It was to last so long from the moment of the order, whatever the clock is set to."""
    at_once: bool = False
    """Jobs in hand are not finished before."""
    stays: bool = False
    """Of an end: the worker's page stays, and starts it again."""
    after: Given | None = None
    """Of an end that a new life follows: the pause that it came in, which goes on afterwards."""


class Orders:
    """The order and the answer in one worker's state folder. Any thread may use it."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._unwritten: tuple[str, Given] | None = None  # what the file held then
        self.latest = Overview(doing=STARTING)
        """The last answer that was given through this object, for those in the same process."""

    def give(self, order: Order | Given) -> None:
        """Raises OSError where the folder can't be written."""
        given = order if isinstance(order, Given) else Given(order=order)
        before = self.given()
        if given.order is Order.restart and before and before.order is Order.pause:
            given = given.model_copy(update={"after": before})
        self._unwritten = None
        self._write(_ORDER, given.model_dump_json())

    def give_here(self, order: Order | Given) -> None:
        """Within the worker's own process, which heeds it also where nothing can be written."""
        given = order if isinstance(order, Given) else Given(order=order)
        try:
            self.give(given)
        except OSError:
            self._unwritten = (self._read(_ORDER), given)

    def given(self) -> Given | None:
        """The last one; None where there is none that can be read."""
        text, unwritten = self._read(_ORDER), self._unwritten
        if unwritten and text == unwritten[0]:
            return unwritten[1]
        with suppress(ValidationError):
            return Given.model_validate_json(text)
        with suppress(ValueError):  # as earlier versions wrote it
            return Given(order=Order(text))
        return None

    def is_given(self, *orders: Order) -> bool:
        """Whether the last one is one of these."""
        given = self.given()
        return given is not None and given.order in orders

    def answer(self, overview: Overview) -> None:
        """What the worker does. Raises OSError where the folder can't be written."""
        self.latest = overview
        self._write(_ANSWER, overview.model_dump_json())

    def begin(self) -> None:
        """A new life of the worker: to end was the order of an earlier one."""
        with suppress(OSError):
            given = self.given()
            if given and given.order in OF_ONE_LIFE:
                self.give(given.after or Order.serve)
            self.answer(Overview(doing=STARTING))

    def end(self) -> None:
        """This life is over."""
        with suppress(OSError):
            self.answer(Overview(doing=ENDED))

    def answered(self) -> Overview | None:
        """What the worker said last that it does; None where nothing can be read."""
        return read_overview(self._read(_ANSWER))

    def _write(self, name: str, text: str) -> None:
        """At once or not at all, and for the owner alone."""
        write_whole(self._folder / name, text.encode())

    def _read(self, name: str) -> str:
        try:
            return (self._folder / name).read_text("utf-8", "replace").strip()
        except OSError:
            return ""
