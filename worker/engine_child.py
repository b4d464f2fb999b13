"""The child process that owns one device: commands in, reports out. It runs nothing else."""

from __future__ import annotations

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection

from hordelib.engine import Engine
from hordelib.errors import JobError
from worker.child import Child, set_up_process
from worker.messages import EngineSettings, Failed, Finished, Generate, Ready, Stepped

log = logging.getLogger(__name__)


def main(pipe: Connection, settings: EngineSettings) -> None:
    """The spawned process: returns when told to stop, exits when the bridge is gone."""
    set_up_process(settings.log_file)
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # count cards as the driver does
    engine = Engine(
        comfyui=settings.comfyui,
        device=settings.device,
        ram_reserve_bytes=settings.ram_reserve_bytes,
        vram_reserve_bytes=settings.vram_reserve_bytes,
    )
    EngineChild(Child(pipe), engine).serve()


class EngineChild:
    """Reads commands on the main thread while another one is busy with a job."""

    def __init__(self, child: Child, engine: Engine):
        self._child = child
        self._engine = engine
        self._worker = ThreadPoolExecutor(1, "jobs")

    def serve(self) -> None:
        self._worker.submit(self._start)
        for command in self._child.commands():
            self._worker.submit(self._generate, command)
        self._worker.shutdown(wait=True)
        self._engine.close()

    def _start(self) -> None:
        try:
            self._child.report(Ready(self._engine.start()))
        except Exception as error:  # noqa: BLE001 - whatever it is, the bridge has to be told
            self._child.give_up(error)

    def _generate(self, job: Generate) -> None:
        def on_step(done: int, total: int) -> None:
            self._child.report(Stepped(job.number, done, total))

        try:
            generation = self._engine.generate(job.params, job.model, on_step)
        except JobError as error:
            log.warning("job %d failed", job.number, exc_info=True)
            self._child.report(Failed(job.number, error.with_traceback(None)))
        except Exception as error:  # noqa: BLE001 - the job boundary: an engine at fault is replaced
            self._child.give_up(error)
        else:
            self._child.report(Finished(job.number, generation))
