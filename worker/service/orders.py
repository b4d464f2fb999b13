"""What its owner tells a running worker from another terminal: pause, resume, drain.

An order is a word in the state folder, so there is no port or socket that anybody else could use.
The worker answers with another file: an overview of what it is doing.
"""

from __future__ import annotations

from contextlib import suppress
from enum import StrEnum
from pathlib import Path

from hordelib.files.whole_files import write_whole
from worker.service.overview import Overview, read_overview

_ORDER, _ANSWER = "order", "doing"
STARTING, SERVING, MAINTENANCE, ENDED = "starting", "serving", "in maintenance", "ended"


class Order(StrEnum):
    serve = "serve"
    pause = "pause"
    """Finish what is in hand, free the device, take no more. Outlives the worker's process."""
    drain = "drain"
    """Finish what is in hand, then end."""


class Orders:
    """The order and the answer in one worker's state folder."""

    def __init__(self, folder: Path):
        self._folder = folder

    def give(self, order: Order) -> None:
        """Raises OSError where the folder can't be written."""
        self._write(_ORDER, order)

    def given(self) -> Order | None:
        """The last one; None where there is none that can be read."""
        try:
            return Order(self._read(_ORDER))
        except ValueError:
            return None

    def answer(self, overview: Overview) -> None:
        """What the worker does. Raises OSError where the folder can't be written."""
        self._write(_ANSWER, overview.model_dump_json())

    def begin(self) -> None:
        """A new life of the worker: to drain was the order of an earlier one."""
        with suppress(OSError):
            if self.given() is Order.drain:
                self.give(Order.serve)
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
