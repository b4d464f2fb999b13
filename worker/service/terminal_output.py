"""What the application writes to the terminal, which holds up nothing.

A terminal may be gone (its window is closed, a connection is cut) or stopped (Ctrl-S, a connection
that hangs). Textual waits for both without end, in the thread that listens to signals and orders.
"""

from __future__ import annotations

import io
import os
import select
from typing import Any

from textual.driver import Driver

STOPPED_SECONDS = 0.5  # without a byte taken, until the terminal counts as stopped
_PIECE_BYTES = 256  # a terminal that select calls ready takes so many without waiting


class TerminalOutput(io.TextIOBase):
    """A file for one thread. What the terminal does not take is dropped."""

    def __init__(self, number: int):
        self._number = number
        self.is_gone = False
        self.is_stopped = False
        self.has_dropped = False
        """Whether the screen lacks something, until whoever draws it has set this back."""

    def write(self, text: str, /) -> int:
        left = memoryview(text.encode("utf-8", "replace"))
        while left and self._takes_more():
            try:
                left = left[os.write(self._number, left[:_PIECE_BYTES]) :]
            except OSError:
                self.is_gone = True
        self.has_dropped |= bool(left)
        return len(text)

    def fileno(self) -> int:
        return self._number

    def _takes_more(self) -> bool:
        if not self.is_gone and os.name != "nt":  # select knows no terminals there
            seconds = 0.0 if self.is_stopped else STOPPED_SECONDS
            self.is_stopped = not select.select([], [self._number], [], seconds)[1]
        return not (self.is_gone or self.is_stopped)


def patient(driver: type[Driver], output: TerminalOutput) -> type[Driver]:
    """The same driver of Textual's, which writes to `output`."""

    def begin(self: Any, *arguments: Any, **options: Any) -> None:
        driver.__init__(self, *arguments, **options)
        self._file = output

    return type(f"Patient{driver.__name__}", (driver,), {"__init__": begin})
