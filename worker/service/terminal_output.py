"""What the application writes to the terminal, which holds up nothing.

A terminal may be gone (its window is closed, a connection is cut) or stopped (Ctrl-S, a connection
that hangs). Textual waits for both without end, in the thread that listens to signals and orders.
"""

from __future__ import annotations

import io
import os
import select
from contextlib import suppress
from typing import Any

from textual.driver import Driver

STOPPED_SECONDS = 0.5  # without a byte taken, until the terminal counts as stopped


class TerminalOutput(io.TextIOBase):
    """A file for one thread. What the terminal does not take is dropped.

    `number` is the terminal's file descriptor. It is opened once more by its name, since not to
    wait is the property of an open file that all who have it would share.
    """

    def __init__(self, number: int):
        self._number = number
        self._own: int | None = None
        self.is_gone = False
        self.is_stopped = False
        self.has_dropped = False
        """Whether the screen lacks something, until whoever draws it has set this back."""

    def write(self, text: str, /) -> int:
        left = memoryview(text.encode("utf-8", "replace"))
        while left and not self.is_gone:
            try:
                left = left[os.write(self._opened(), left) :]
                self.is_stopped = False
            except BlockingIOError:
                if not self._is_ready():
                    break
            except OSError:
                self.is_gone = True
        self.has_dropped |= bool(left)
        return len(text)

    def fileno(self) -> int:
        return self._number

    def close(self) -> None:
        if self._own is not None and self._own != self._number:
            os.close(self._own)
        self._own = self._number
        super().close()

    def _opened(self) -> int:
        if self._own is None:
            self._own = self._number
            if os.name != "nt":  # a window there takes everything
                with suppress(OSError):
                    flags = os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK
                    self._own = os.open(os.ttyname(self._number), flags)
        return self._own

    def _is_ready(self) -> bool:
        """Whether it takes more, after a wait that only the first time lasts."""
        seconds = 0.0 if self.is_stopped else STOPPED_SECONDS
        self.is_stopped = not select.select([], [self._opened()], [], seconds)[1]
        return not self.is_stopped


def patient(driver: type[Driver], output: TerminalOutput) -> type[Driver]:
    """The same driver of Textual's, which writes to `output`."""

    def begin(self: Any, *arguments: Any, **options: Any) -> None:
        driver.__init__(self, *arguments, **options)
        self._file = output

    return type(f"Patient{driver.__name__}", (driver,), {"__init__": begin})
