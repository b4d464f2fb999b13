"""The bridge's side of a child process: start it, speak with it, notice that it died or hung."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from worker.children.messages import Broken, Ready, Stop
from worker.children.process import Process

LOOK_SECONDS = (0.2, 1.0)  # between two looks after a child that says nothing: at least, at most
STANDSTILL_SECONDS = 3.0  # between two looks: more can only be that this process did not run


class Limit:
    """How long a child may take until it says its next word about what it does.

    Whoever waits looks at it at least once a second. Where the looks are further apart, this
    process itself was stopped (SIGSTOP, a debugger, a virtual machine that was paused), and the
    child with it: what is above STANDSTILL_SECONDS is not held against the child.

    Args:
        what: ends the sentence "the engine took longer than 60 s …".
    """

    def __init__(self, seconds: float, what: str):
        self.seconds = seconds
        self.what = what
        self._left = seconds
        self._looked_at = time.monotonic()

    @property
    def left(self) -> float:
        """Seconds; none or less where it is over. This is a look."""
        now = time.monotonic()
        self._left -= min(now - self._looked_at, STANDSTILL_SECONDS)
        self._looked_at = now
        return self._left


class Supervisor:
    """A spawned child and the pipe to it, one life after the other. No call blocks for ever.

    Used by one thread at a time, but for `send`, `kill` and what there is to look at.

    Args:
        name: what it is called in messages and in the list of processes.
        main: what the child runs; it gets its end of the pipe, and `settings`.
        gone: the exception that tells that the child is dead, or was killed.
    """

    def __init__(
        self,
        name: str,
        main: Callable[[Any, Any], None],
        settings: object,
        *,
        log_file: Path,
        gone: type[Exception],
    ):
        self._name = name
        self._main = main
        self._settings = settings
        self._log_file = log_file
        self._gone = gone
        self._spawning = threading.Lock()
        self._life: Process | None = None

    @property
    def pid(self) -> int | None:
        return self._life.pid if self._life is not None else None

    @property
    def is_alive(self) -> bool:
        return self._life is not None and self._life.is_alive

    @property
    def silent_seconds(self) -> float:
        """Since the last word of a child that is ready: above 2, something is wrong. Else 0."""
        return self._life.silent_seconds if self._life is not None else 0.0

    def start(self, patience_seconds: float) -> str:
        """Spawn the child, in place of one that is still there, and return what it is ready with.

        Raises `gone` when it dies, can't start, or takes longer than `patience_seconds`.
        """
        self.kill()
        with self._spawning:
            self._life = self._spawned()
        # Loading libraries can keep a child from saying anything: only the whole time counts.
        report = self.receive(Limit(patience_seconds, "to start"), silence=patience_seconds)
        if not isinstance(report, Ready):
            self.fail(f"the {self._name} spoke garbage")
        return report.what

    def send(self, command: object, patience_seconds: float) -> None:
        """Raises `gone` where nobody reads it within `patience_seconds`; the child is dead then."""
        if self._life is None:
            raise self._death(f"the {self._name} was never started")
        try:
            self._life.send(command, patience_seconds)
        except OSError as error:
            raise self._death(self._life.fate()) from error

    def receive(self, *limits: Limit, silence: float) -> Any:
        """The child's next report but `Alive`.

        Raises `gone` at its death or nonsense, after `silence` seconds without a word, and when a
        limit is over; it is killed then. A child that said of which kind of `gone` it dies: that.
        """
        life = self._life
        assert life is not None
        watch = _Watch(life, limits, silence)
        if limit := watch.passed():  # it has gone on talking
            self.fail(self._too_long(limit))
        complaint: str | None = None
        while (report := self._next_report(life, watch.seconds_to_look())) is None:
            before, complaint = complaint, self._complaint(life, watch)
            # Said twice: after a standstill of the whole machine, the reader has to catch up first.
            if before is not None and complaint is not None:
                self.fail(complaint)
        if isinstance(report, Broken):
            self._kill(report.reason)
            if report.error is not None and isinstance(report.error, self._gone):
                raise report.error
            raise self._death(report.reason)
        return report

    def fail(self, reason: str) -> NoReturn:
        """Kill a child that can't be trusted any more; raises `gone`."""
        self._kill(reason)
        raise self._death(reason)

    def stop(self, timeout: float) -> None:
        """Let the child end by itself, and kill it when that takes more than `timeout` seconds."""
        if self._life is not None:
            with suppress(OSError):
                self._life.send(Stop(), timeout)
                self._life.ends_within(timeout)
        self.kill()

    def kill(self) -> None:
        """End the child at once; safe at any time, from any thread."""
        self._kill(f"the {self._name} was ended by the worker")

    def _kill(self, reason: str) -> None:
        with self._spawning:
            life = self._life
        if life is not None:
            life.kill(reason)

    def _spawned(self) -> Process:
        try:
            return Process(self._name, self._main, self._settings)
        except OSError as error:
            raise self._death(f"the {self._name} process could not be made: {error}") from error

    def _next_report(self, life: Process, seconds: float) -> object:
        try:
            return life.next_report(seconds)
        except EOFError as error:
            raise self._death(life.fate()) from error

    def _complaint(self, life: Process, watch: _Watch) -> str | None:
        if not life.is_alive:
            return life.fate()
        if limit := watch.passed():
            return self._too_long(limit)
        if watch.is_silent():
            return f"the {self._name} hung: no word for {watch.silence:g} s"
        return None

    def _too_long(self, limit: Limit) -> str:
        return f"the {self._name} took longer than {limit.seconds:g} s {limit.what}"

    def _death(self, reason: str) -> Exception:
        return self._gone(f"{reason} (log: {self._log_file})")


class _Watch:
    """Over a child whose next report is waited for.

    Args:
        silence: seconds that it may say nothing at all, once it is ready.
    """

    def __init__(self, life: Process, limits: Sequence[Limit], silence: float):
        self.silence = silence
        self._life = life
        self._limits = limits
        self._heard_at = life.heard_at
        self._quiet = Limit(silence, "to say a word")  # since it is waited for, or its last word

    def passed(self) -> Limit | None:
        """The first limit that is over."""
        lefts = [limit.left for limit in self._limits]  # each is looked at
        return next(
            (limit for limit, left in zip(self._limits, lefts, strict=True) if left <= 0), None
        )

    def is_silent(self) -> bool:
        return self._life.is_ready and self._quiet_seconds_left() <= 0

    def seconds_to_look(self) -> float:
        """Until something can be overdue, about: each look wakes a thread."""
        least, most = LOOK_SECONDS
        if not self._life.is_alive:
            return least
        lefts = [self._quiet_seconds_left(), *(limit.left for limit in self._limits)]
        return max(least, min(most, *lefts))

    def _quiet_seconds_left(self) -> float:
        if self._life.heard_at != self._heard_at:
            self._heard_at = self._life.heard_at
            self._quiet = Limit(self.silence, self._quiet.what)
        return self._quiet.left
