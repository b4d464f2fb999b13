"""The signals that ask a worker to stop, caught from a program's first moment to its last.

A signal that nobody catches ends a process by itself, without the exit code that the README
promises. This module imports little, so that a program can catch them before it imports the rest.
"""

from __future__ import annotations

import math
import select
import signal
import socket
from collections.abc import Generator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Self

# Ctrl-C, the system's stop, and the terminal's end; Windows' Ctrl-Break and closed console.
STOP_SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGHUP", "SIGTERM", "SIGBREAK")
    if hasattr(signal, name)
)


class StopSignals:
    """How many asked us to stop. No lock: one that a signal handler takes may never come.

    Made in the main thread. A signal is only counted, but within `interrupting`, where it raises
    KeyboardInterrupt, too.
    """

    def __init__(self) -> None:
        self.count = 0
        self.is_from_keyboard = False  # the last one, by Ctrl-C
        self._interrupts_from = math.inf  # the count that raises
        self._bell, self._wire = socket.socketpair()
        self._wire.setblocking(False)

    @classmethod
    def caught(cls) -> Self:
        """From now on. What is ignored stays so: nohup wants no end with the terminal."""
        signals = cls()
        for number in STOP_SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, signals.came)
        return signals

    def came(self, number: int = 0, _frame: FrameType | None = None) -> None:
        self.count += 1
        self.is_from_keyboard = number == signal.SIGINT
        with suppress(BlockingIOError):  # it rings already
            self._wire.send(b"\0")
        if self.count >= self._interrupts_from:
            raise KeyboardInterrupt

    @contextmanager
    def interrupting(self) -> Generator[None]:
        """Raise KeyboardInterrupt at a signal, also at one that has come before."""
        self._interrupts_from = 1
        try:
            if self.count:
                raise KeyboardInterrupt
            yield
        finally:
            self._interrupts_from = math.inf

    @contextmanager
    def counted(self) -> Generator[None]:
        """Count them for whoever looks; afterwards only the second one interrupts."""
        self._interrupts_from = math.inf
        try:
            yield
        finally:
            self._interrupts_from = max(2, self.count + 1)

    def fileno(self) -> int:
        """Readable once a signal has come, until a nap has seen it."""
        return self._bell.fileno()

    def nap(self, seconds: float) -> None:
        """Until the next signal, but no longer."""
        if select.select([self._bell], [], [], seconds)[0]:
            self._bell.recv(64)

    def end(self) -> None:
        """The exit code is decided: no signal changes it any more."""
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        self.close()

    def close(self) -> None:
        self._bell.close()
        self._wire.close()
