"""The bridge's side of a child process: start it, speak with it, notice that it died."""

from __future__ import annotations

import atexit
import multiprocessing
import signal
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NoReturn

from worker.messages import Alive, Broken, Ready, Stop


class ChildProcess:
    """One spawned child and the pipe to it. Used by one thread at a time, but for `kill`.

    Args:
        name: what it is called in messages and in the list of processes.
        main: what the child runs; it gets its end of the pipe, and `settings`.
        gone: the exception that tells that the child is dead, or was killed for being silent.
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
        self._process: Any = None
        self._spawning = threading.Lock()
        self._pipe: Connection[Any, Any] | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.is_alive()

    def start(self, patience_seconds: float) -> str:
        """Spawn the child, in place of one that is still there, and return what it is ready with.

        Raises `gone` when it dies, can't start, or takes longer than `patience_seconds`.
        """
        self.kill()
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        process = context.Process(
            target=self._main, args=(theirs, self._settings), name=self._name, daemon=True
        )
        with self._spawning, _signals_blocked():
            process.start()
            self._process = process
            atexit.register(process.kill)  # it leaves SIGTERM, which multiprocessing sends, to us
        theirs.close()
        return self._await_ready(patience_seconds)

    def send(self, command: object) -> None:
        """Raises `gone` where nobody reads it."""
        if self._pipe is None:
            raise self._gone(f"the {self._name} was never started")
        try:
            self._pipe.send(command)
        except OSError as error:
            raise self._gone(self._obituary()) from error

    def receive(self, deadline: float, silence: float) -> Any:
        """The child's next report but `Alive`.

        Raises `gone` at its death, after `silence` seconds without a word, and at `deadline`
        (time.monotonic()); it is killed then.
        """
        assert self._pipe is not None
        while True:
            patience = min(silence, deadline - time.monotonic())
            if patience <= 0 or not wait([self._pipe, self._process.sentinel], patience):
                self.fail(f"the {self._name} hung")
            try:
                report = self._pipe.recv()
            except (EOFError, OSError):
                self.fail(self._obituary())
            if isinstance(report, Broken):
                self.fail(report.reason)
            if not isinstance(report, Alive):
                return report

    def fail(self, reason: str) -> NoReturn:
        """Kill a child that can't be trusted any more; raises `gone`."""
        self.kill()
        raise self._gone(f"{reason} (log: {self._log_file})")

    def stop(self, timeout: float) -> None:
        """Let the child end by itself, and kill it when that takes more than `timeout` seconds."""
        with suppress(self._gone):
            self.send(Stop())
            self._process.join(timeout)
        self.kill()

    def kill(self) -> None:
        """End the child at once; safe at any time, from any thread."""
        with self._spawning:
            process = self._process
        if process is not None:
            process.kill()
            process.join()
            atexit.unregister(process.kill)

    def _await_ready(self, patience_seconds: float) -> str:
        """Loading libraries can keep a child from saying anything: only the whole time counts."""
        deadline = time.monotonic() + patience_seconds
        while True:
            match self.receive(deadline, silence=patience_seconds):
                case Ready(what):
                    return what
                case _:
                    pass

    def _obituary(self) -> str:
        self._process.join(2)
        code = self._process.exitcode
        if code is not None and code < 0:
            return f"the {self._name} process was ended by {signal.Signals(-code).name}"
        return f"the {self._name} process ended with exit code {code}"


@contextmanager
def _signals_blocked() -> Generator[None]:
    """Keep Ctrl-C from a child that does not ignore it yet; children inherit the mask."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
