"""The bridge's side of the engine child: start it, give it jobs, notice that it died."""

from __future__ import annotations

import atexit
import logging
import multiprocessing
import signal
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NoReturn

from hordelib.engine import Generation, OnStep, unwatched
from hordelib.errors import EngineError
from hordelib.params import GenerationParams
from worker import engine_child
from worker.messages import (
    Alive,
    Broken,
    Command,
    EngineSettings,
    Failed,
    Finished,
    Generate,
    Ready,
    Report,
    Stepped,
    Stop,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a child may be silent, in seconds, before it counts as hung and is killed."""

    start: float = 180  # import torch and ComfyUI
    heartbeat: float = 15  # any word at all, once started
    model: float = 120  # a job's first step (model load, text encoding), and its decoding
    step: float = 60  # from one step to the next
    job: float = 600  # the whole job


class EngineProcess:
    """One spawned child that owns one device. Used by one thread, but for `kill`."""

    def __init__(self, settings: EngineSettings, patience: Patience | None = None):
        self._settings = settings
        self._patience = patience or Patience()
        self._process: Any = None
        self._spawning = threading.Lock()
        self._pipe: Connection[Any, Any] | None = None
        self._calls = 0

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.is_alive()

    def start(self) -> str:
        """Spawn the child and return its device's name once ComfyUI is loaded there.

        Raises EngineError when it dies, can't load ComfyUI, or is silent for too long.
        """
        self.kill()
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        process = context.Process(
            target=engine_child.main, args=(theirs, self._settings), name="engine", daemon=True
        )
        with self._spawning, _signals_blocked():
            process.start()
            self._process = process
            atexit.register(process.kill)  # it leaves SIGTERM, which multiprocessing sends, to us
        theirs.close()
        return self._await_ready()

    def generate(
        self, params: GenerationParams, checkpoint: Path, on_step: OnStep = unwatched
    ) -> Generation:
        """Have the child make the job's pictures.

        Raises the child's JobError, or EngineError when the child is at fault or gone; it is dead
        then, and `start` gives a new one.
        """
        self._calls += 1
        self._send(Generate(self._calls, params, checkpoint))
        patience = self._patience
        end = time.monotonic() + patience.job
        deadline = time.monotonic() + patience.model
        while True:
            match self._receive(min(deadline, end), silence=patience.heartbeat):
                case Stepped(number, done, total) if number == self._calls:
                    between_steps = done < total
                    deadline = time.monotonic() + (
                        patience.step if between_steps else patience.model
                    )
                    on_step(done, total)
                case Finished(number, generation) if number == self._calls:
                    return generation
                case Failed(number, error) if number == self._calls:
                    raise error
                case _:
                    pass

    def stop(self, timeout: float = 10) -> None:
        """Let the child end by itself, and kill it when that takes more than `timeout` seconds."""
        with suppress(EngineError):
            self._send(Stop())
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

    def _await_ready(self) -> str:
        """Loading libraries can keep a child from saying anything: only `start` counts."""
        deadline = time.monotonic() + self._patience.start
        while True:
            match self._receive(deadline, silence=self._patience.start):
                case Ready(device):
                    return device
                case _:
                    pass

    def _send(self, command: Command) -> None:
        if self._pipe is None:
            raise EngineError("the engine was never started")
        try:
            self._pipe.send(command)
        except OSError as error:
            raise EngineError(self._obituary()) from error

    def _receive(self, deadline: float, silence: float) -> Report:
        """The child's next report but `Alive`. Raises EngineError at its death or silence."""
        assert self._pipe is not None
        while True:
            patience = min(silence, deadline - time.monotonic())
            if patience <= 0 or not wait([self._pipe, self._process.sentinel], patience):
                self._fail("the engine hung")
            try:
                report: Report = self._pipe.recv()
            except (EOFError, OSError):
                self._fail(self._obituary())
            if isinstance(report, Broken):
                self._fail(report.reason)
            if not isinstance(report, Alive):
                return report

    def _fail(self, reason: str) -> NoReturn:
        self.kill()
        raise EngineError(f"{reason} (log: {self._settings.log_file})")

    def _obituary(self) -> str:
        self._process.join(2)
        code = self._process.exitcode
        if code is not None and code < 0:
            return f"the engine process was ended by {signal.Signals(-code).name}"
        return f"the engine process ended with exit code {code}"


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
