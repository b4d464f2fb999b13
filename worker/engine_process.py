"""The bridge's side of the engine child: give it jobs, and notice that it died under one."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hordelib.engine import Generation, OnStep, unwatched
from hordelib.errors import EngineError
from hordelib.model import Model
from hordelib.params import GenerationParams
from worker import engine_child
from worker.child_process import ChildProcess
from worker.messages import EngineSettings, Failed, Finished, Generate, Stepped


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a child may be silent, in seconds, before it counts as hung and is killed."""

    start: float = 180  # import torch and ComfyUI
    heartbeat: float = 15  # any word at all, once started
    model: float = 120  # a job's first step (model load, text encoding), and its decoding
    step: float = 60  # from one step to the next
    job: float = 600  # the whole job


class EngineProcess:
    """One spawned child that owns one device. Used by one thread, but for `kill`.

    `main` is what the child runs; tests put one that fails on purpose in its place.
    """

    def __init__(
        self,
        settings: EngineSettings,
        patience: Patience | None = None,
        main: Callable[[Any, Any], None] = engine_child.main,
    ):
        self._patience = patience or Patience()
        self._child = ChildProcess(
            "engine", main, settings, log_file=settings.log_file, gone=EngineError
        )
        self._calls = 0

    @property
    def pid(self) -> int | None:
        return self._child.pid

    @property
    def is_alive(self) -> bool:
        return self._child.is_alive

    def start(self) -> str:
        """Spawn the child and return its device's name once ComfyUI is loaded there.

        Raises EngineError when it dies, can't load ComfyUI, or is silent for too long.
        """
        return self._child.start(self._patience.start)

    def generate(
        self, params: GenerationParams, model: Model, on_step: OnStep = unwatched
    ) -> Generation:
        """Have the child make the job's pictures.

        Raises the child's JobError, or EngineError when the child is at fault or gone; it is dead
        then, and `start` gives a new one.
        """
        self._calls += 1
        self._child.send(Generate(self._calls, params, model))
        patience = self._patience
        end = time.monotonic() + patience.job
        deadline = time.monotonic() + patience.model
        while True:
            match self._child.receive(min(deadline, end), silence=patience.heartbeat):
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
        self._child.stop(timeout)

    def kill(self) -> None:
        """End the child at once; safe at any time, from any thread."""
        self._child.kill()
