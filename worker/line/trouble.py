"""Trouble that lasts, told in few lines: when it begins, each new cause of it, now and then
meanwhile, and its end."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Hashable

from worker.clock import elapsed_seconds

SUMMED_UP_SECONDS = 60.0  # after the beginning; then after twice as long, and so on
MOST_SILENT_SECONDS = 3600.0  # between two lines, at most
SHORT_SECONDS = 10.0  # the end of what took less is not told
_LONGEST = 160  # characters of the latest reason: its remedy was told when it was new
_MOST_CAUSES = 10  # that are told whole: some servers write another one each time


class Trouble:
    """Calls of one kind that fail and are tried again. Any thread may use it.

    It begins with the first of several callers that fails, and ends with a call that works while
    no other caller fails. `what` is told of it while it lasts, and `over` at its end.
    """

    def __init__(
        self,
        what: str,
        log: logging.Logger,
        *,
        over: str,
        clock: Callable[[], float] = elapsed_seconds,
    ):
        self._what = what
        self._over = over
        self._log = log
        self._clock = clock
        self._lock = threading.Lock()
        self._failing: set[Hashable] = set()
        self._causes: set[str] = set()  # that were told; empty while there is no trouble
        self._tries = 0
        self._since = self._due = 0.0

    def failed(self, line: str, caller: Hashable = None) -> None:
        """One more try of this caller has failed; `line` is told whole where its cause is new."""
        with self._lock:
            now, cause = self._clock(), without_numbers(line)
            if not self._causes:
                self._tries, self._since, self._due = 0, now, now + SUMMED_UP_SECONDS
            self._failing.add(caller)
            self._tries += 1
            if cause not in self._causes and len(self._causes) < _MOST_CAUSES:
                self._causes.add(cause)
                self._log.warning("%s", line)
            elif now >= self._due:
                self._due = now + min(2 * (now - self._since), MOST_SILENT_SECONDS)
                told = _cut(line.removeprefix(f"{self._what}: "))
                self._log.warning("%s for %s: %s", self._what, self._so_far(), told)

    def over(self, caller: Hashable = None) -> None:
        """A call of this caller has worked."""
        if not self._causes:  # nearly always: no lock for that
            return
        with self._lock:
            self._failing.discard(caller)
            if self._failing or not self._causes:
                return
            self._causes.clear()
            if self._clock() - self._since >= SHORT_SECONDS:
                self._log.info("%s, after %s", self._over, self._so_far())

    def given_up(self, caller: Hashable) -> None:
        """This caller tries no more, whether its call has worked or not."""
        if not self._failing:
            return
        with self._lock:
            self._failing.discard(caller)

    def _so_far(self) -> str:
        tries = f", {self._tries} tries" if self._tries > 1 else ""
        return f"{duration(self._clock() - self._since)}{tries}"


def duration(seconds: float) -> str:
    """For people: 40 s, 12 min, 3 h."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 2 * 3600 else f"{seconds / 3600:.0f} h"


def without_numbers(line: str) -> str:
    """A line without its numbers, which change from call to call."""
    return re.sub(r"\d+", "", line)


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
