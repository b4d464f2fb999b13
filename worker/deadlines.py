"""Deadlines of what is sent to child processes, kept by one thread for the whole program.

Each job has some, and next to none is ever reached. A threading.Timer would start a thread for
each, which takes longer than all else about it; here, setting one takes microseconds.
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable
from functools import cache
from threading import TIMEOUT_MAX, Condition, Thread


class Deadline:
    """Made by `deadline`."""

    def __init__(self, action: Callable[[], object]):
        self._action: Callable[[], object] | None = action

    @property
    def is_over(self) -> bool:
        return self._action is None

    def cancel(self) -> None:
        """It was met, from any thread. Harmless once it has passed."""
        self._action = None

    def pass_by(self) -> None:
        """Called by its keeper, who waits for no action: another deadline may be near."""
        action, self._action = self._action, None
        if action is not None:
            Thread(target=action, name="deadline", daemon=True).start()


def deadline(seconds: float, action: Callable[[], object]) -> Deadline:
    """Have `action` called in so many seconds, in a thread of its own, unless it is cancelled."""
    made = Deadline(action)
    _keeper().keep(time.monotonic() + seconds, made)
    return made


class _Keeper:
    def __init__(self) -> None:
        self._changed = Condition()
        self._numbers = itertools.count()
        self._waiting: list[tuple[float, int, Deadline]] = []  # a heap; cancelled ones too
        Thread(target=self._serve, name="deadlines", daemon=True).start()

    def keep(self, moment: float, made: Deadline) -> None:
        with self._changed:
            heapq.heappush(self._waiting, (moment, next(self._numbers), made))
            if self._waiting[0][2] is made:
                self._changed.notify()

    def _serve(self) -> None:
        while True:
            self._next_passed().pass_by()

    def _next_passed(self) -> Deadline:
        with self._changed:
            while (seconds := self._seconds_to_next()) > 0:
                self._changed.wait(min(seconds, TIMEOUT_MAX))
            return heapq.heappop(self._waiting)[2]

    def _seconds_to_next(self) -> float:
        while self._waiting and self._waiting[0][2].is_over:
            heapq.heappop(self._waiting)
        return self._waiting[0][0] - time.monotonic() if self._waiting else TIMEOUT_MAX


@cache
def _keeper() -> _Keeper:
    """The program's one, which is made for the first deadline."""
    return _Keeper()
