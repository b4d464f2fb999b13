"""The child process that owns one device: commands in, reports out. It runs nothing else."""

from __future__ import annotations

import gc
import logging
import os
import sys
import time
from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection

from hordelib.engine import Engine, Generation
from hordelib.errors import Cancelled, GenerationFailed, JobError
from hordelib.job.images import MAX_WEBP_SIDE, Picture
from hordelib.memory.cards import VISIBLE
from worker.children.child_side import Child, leave_no_semaphore, set_up_process
from worker.children.messages import (
    Cancel,
    Drawn,
    EngineSettings,
    Failed,
    Finished,
    Generate,
    Loaded,
    ReadAhead,
    Ready,
    Stepped,
)

STEP_SECONDS = 0.8  # between two that are told; below a heartbeat, which short steps then spare

# A thread that gives orders to a card gets its turn after so long, while another one computes in
# Python. Python's own 5 ms halve the small operations of a step: 33,500 a second came to 18,600.
SWITCH_SECONDS = 0.0001

log = logging.getLogger(__name__)


def main(pipe: Connection, settings: EngineSettings) -> None:
    """The spawned process: exits when told to stop, or when the bridge is gone."""
    set_up_process(settings.log_file)
    leave_no_semaphore()
    sys.setswitchinterval(SWITCH_SECONDS)
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # count cards as the driver does
    if settings.card:
        os.environ[VISIBLE] = settings.card
    engine = Engine(
        comfyui=settings.comfyui,
        device=settings.device,
        ram_reserve_bytes=settings.ram_reserve_bytes,
        vram_reserve_bytes=settings.vram_reserve_bytes,
        memory_file=settings.memory_file,
        fast=settings.fast,
    )
    child = Child(pipe)
    EngineChild(child, engine).serve()
    child.leave()


class EngineChild:
    """Reads commands on the main thread while another one is busy with a job."""

    def __init__(self, child: Child, engine: Engine):
        self._child = child
        self._engine = engine
        self._worker = ThreadPoolExecutor(1, "jobs")
        self._cancelled = 0  # the call of this number, and those before it, are not to go on

    def serve(self) -> None:
        self._worker.submit(self._start)
        for command in self._child.commands():
            match command:
                case Cancel(number):
                    self._cancelled = number
                case ReadAhead(keys):
                    self._engine.read_ahead(keys)
                case _:
                    self._worker.submit(self._run, command)
        self._worker.shutdown(wait=True)
        self._engine.close()

    def _start(self) -> None:
        try:
            with _sparing_the_collector():
                device = self._engine.start()
            self._child.report(Ready(device))
        except Exception as error:  # noqa: BLE001 - whatever it is, the bridge has to be told
            self._child.give_up(error)

    def _run(self, job: Generate) -> None:
        try:
            generations = self._generate(job)
        except JobError as error:
            log.warning("job %d failed", job.number, exc_info=True)
            self._child.report(Failed(job.number, error.with_traceback(None)))
        except Exception as error:  # noqa: BLE001 - the job boundary: an engine at fault is replaced
            self._child.give_up(error)
        else:
            for generation in generations:
                for picture in generation.images:
                    self._child.report(Drawn(job.number, picture))
            told = tuple(replace(generation, images=()) for generation in generations)
            self._child.report(Finished(job.number, told))

    def _generate(self, job: Generate) -> tuple[Generation, ...]:
        """Cancelling raises in what the engine calls, so that it can only meet its own job."""

        def on_loaded() -> None:
            self._raise_if_cancelled(job)
            self._child.report(Loaded(job.number))

        next_at = time.monotonic() + STEP_SECONDS

        def on_step(done: int, total: int) -> None:
            nonlocal next_at
            self._raise_if_cancelled(job)
            if done == total or time.monotonic() >= next_at:
                self._child.report(Stepped(job.number, done, total))
                next_at = time.monotonic() + STEP_SECONDS

        self._raise_if_cancelled(job)
        generations = self._engine.generate_together(
            job.members, job.model, on_step, on_loaded=on_loaded
        )
        for generation in generations:
            _insist_on_deliverable(generation.images)
        return generations

    def _raise_if_cancelled(self, job: Generate) -> None:
        if job.number <= self._cancelled:
            raise Cancelled("stopped on request")


@contextmanager
def _sparing_the_collector() -> Generator[None]:
    """What ComfyUI and torch are made of stays for good: no collection looks at it again.

    There are half a million objects of it, and every model that is let go of means a collection. To
    look for garbage again and again while they are made takes a tenth of the time.
    """
    gc.disable()
    try:
        yield
        gc.freeze()  # there is next to no garbage among it: not worth a search
    finally:
        gc.enable()


def _insist_on_deliverable(pictures: Iterable[Picture]) -> None:
    for picture in pictures:
        if max(picture.width, picture.height) > MAX_WEBP_SIDE:
            size = f"{picture.width}x{picture.height}"
            raise GenerationFailed(f"{size} pixels are more than a WebP file can have")
