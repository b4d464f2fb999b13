"""The child process that owns one device: commands in, reports out. It runs nothing else."""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TextIO

from hordelib.engine import Engine
from hordelib.errors import HordelibError, JobError
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

HEARTBEAT_SECONDS = 1.0
LOG_BYTES = 5 << 20  # a longer log is put aside at the next start

log = logging.getLogger(__name__)


def main(pipe: Connection, settings: EngineSettings) -> None:
    """The spawned process: returns when told to stop, exits when the bridge is gone."""
    _leave_signals_to_the_bridge()
    _write_to(settings.log_file)
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # count cards as the driver does
    engine = Engine(
        comfyui=settings.comfyui,
        device=settings.device,
        ram_reserve_bytes=settings.ram_reserve_bytes,
        vram_reserve_bytes=settings.vram_reserve_bytes,
    )
    EngineChild(pipe, engine).serve()


class EngineChild:
    """Reads commands on the main thread while another one is busy with a job."""

    def __init__(self, pipe: Connection, engine: Engine):
        self._pipe = pipe
        self._engine = engine
        self._sending = threading.Lock()
        self._worker = ThreadPoolExecutor(1, "jobs")
        self._stopped = threading.Event()

    def serve(self) -> None:
        threading.Thread(target=self._heartbeat, name="heartbeat", daemon=True).start()
        self._worker.submit(self._start)
        try:
            while not self._stopped.is_set():
                self._obey(self._pipe.recv())
        except (EOFError, OSError):
            log.warning("the bridge is gone: exiting")
            os._exit(1)

    def _obey(self, command: Command) -> None:
        match command:
            case Generate():
                self._worker.submit(self._generate, command)
            case Stop():
                self._worker.shutdown(wait=True)
                self._engine.close()
                self._stopped.set()

    def _start(self) -> None:
        try:
            self._report(Ready(self._engine.start()))
        except Exception as error:  # noqa: BLE001 - whatever it is, the bridge has to be told
            self._give_up(error)

    def _generate(self, job: Generate) -> None:
        def on_step(done: int, total: int) -> None:
            self._report(Stepped(job.number, done, total))

        try:
            generation = self._engine.generate(job.params, job.checkpoint, on_step)
        except JobError as error:
            log.warning("job %d failed", job.number, exc_info=True)
            self._report(Failed(job.number, error.with_traceback(None)))
        except Exception as error:  # noqa: BLE001 - the job boundary: an engine at fault is replaced
            self._give_up(error)
        else:
            self._report(Finished(job.number, generation))

    def _give_up(self, error: Exception) -> None:
        log.error("the engine can't go on", exc_info=error)
        known = isinstance(error, HordelibError)
        self._report(Broken(str(error) if known else f"{type(error).__name__}: {error}"))
        os._exit(1)

    def _heartbeat(self) -> None:
        while not self._stopped.wait(HEARTBEAT_SECONDS):
            self._report(Alive())

    def _report(self, report: Report) -> None:
        try:
            with self._sending:
                self._pipe.send(report)
        except OSError:
            os._exit(1)  # nobody listens any more


def _leave_signals_to_the_bridge() -> None:
    """Ctrl-C reaches the whole process group; what it means for the job is for the bridge."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):  # the bridge blocked them around the spawn
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})


def _write_to(log_file: Path) -> None:
    """Send all that this process prints to a file: the terminal is the bridge's."""
    file = _open_log(log_file)
    os.dup2(file.fileno(), sys.stdout.fileno())
    os.dup2(file.fileno(), sys.stderr.fileno())
    faulthandler.enable(file)
    logging.basicConfig(
        stream=file, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )


def _open_log(log_file: Path) -> TextIO:
    """The file, or nowhere: an engine does not fail for want of a log."""
    try:
        log_file.parent.mkdir(parents=True, exist_ok=True)
        if log_file.is_file() and log_file.stat().st_size > LOG_BYTES:
            log_file.replace(log_file.with_suffix(".old.log"))
        return log_file.open("a", buffering=1, encoding="utf-8", errors="replace")
    except OSError:
        return open(os.devnull, "a", encoding="utf-8")
