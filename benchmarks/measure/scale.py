"""What a job costs the worker's own process, and what stays in its memory, as there is more to do.

Engine and judge are simulated and take a set time; the rest is real: the worker's process, its
ledger on the disk, HTTP to a local horde in a process of its own. The table has three parts: `jobs`
grows the number of jobs, `queue` that of the jobs which wait in the worker, `devices` that of the
devices of this one worker, each of which has an engine process of its own.

No two jobs that wait agree, so that none share a batch. All have some 20 steps, whose pictures are
of one colour: that makes their WebP files cheap, which are no matter of scale. The worker's guard
against failing jobs is off here: it would let no more than 16 images wait.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from benchmarks.measure.horde import ServedHorde, Settled, served_horde
from benchmarks.measure.machine import PROJECT
from benchmarks.measure.model_files import MODELS
from benchmarks.measure.simulated import MODEL
from benchmarks.results.frame import Bench, positive
from hordelib.demo_model import ensure_checkpoint
from hordelib.errors import HordelibError
from hordelib.job.samplers import SAMPLERS, UNBATCHABLE
from worker.demo.run import CLIENT_KEY, Client
from worker.demo.sample_requests import Wish
from worker.jobs.ledger import FILE as LEDGER
from worker.line.limits import Limits
from worker.sandbox import ReferenceModel

WARM_UP = 10  # jobs of each device before those that count
AHEAD = 20  # jobs of each device that wait at the horde
LOOK_SECONDS = 1.0
STOP_SECONDS = 30.0
FAST_MS = 5  # of a job on the device, where that is not to be the slowest part
QUEUE_JOBS, DEVICE_JOBS = 300, 100  # of each case; the second of each device
QUICK = ((10, 100, 1000), (1, 20, 200), (1, 2, 4))  # jobs, queues, devices
FULL = ((10, 100, 1000, 10_000), (1, 5, 20, 50, 100, 200), (1, 2, 4, 8))
LINES_OF_LOG = 10
STEPS = range(11, 31)
SAMPLER_NAMES = [name for name, row in SAMPLERS.items() if row.comfy_name not in UNBATCHABLE][:10]


@dataclass(frozen=True, slots=True)
class Case:
    """`jobs` count, of all devices together; each takes `job_ms` on its device."""

    kind: str
    jobs: int
    queue_size: int = 1
    devices: int = 1
    job_ms: int = FAST_MS

    @property
    def ahead(self) -> int:
        """Jobs in hand and at the horde, so that no worker ever waits for one."""
        return self.devices * (max(self.queue_size, Limits().most_ahead) + AHEAD)


@dataclass(frozen=True, slots=True)
class Row:
    """Sizes, threads and files are of the worker's own process."""

    kind: str
    jobs: int  # that were submitted; popped ones take part of a batch of no other
    faulted: int
    queue_size: int
    devices: int
    job_ms: int
    seconds: float
    bridge_cpu_ms: float  # a job
    p50_seconds: float  # from the pop to the submit, as the horde sees it
    p95_seconds: float
    start_rss_bytes: int
    end_rss_bytes: int
    ledger_bytes: int
    threads: int
    files: int

    @property
    def jobs_per_second(self) -> float:
        return self.jobs / self.seconds

    @property
    def images_per_hour(self) -> float:
        """Of all devices; each job is one image."""
        return 3600 * self.jobs_per_second

    @property
    def images_per_hour_and_device(self) -> float:
        return self.images_per_hour / self.devices

    @property
    def rss_per_1000_jobs_bytes(self) -> int:
        """How much the process has grown; over few jobs, it still warms up."""
        return round(1000 * (self.end_rss_bytes - self.start_rss_bytes) / self.jobs)


@dataclass(frozen=True, slots=True)
class Sample:
    """The worker's process at a moment."""

    cpu_seconds: float
    rss_bytes: int
    threads: int
    files: int
    ledger_bytes: int


class SimulatedWorker:
    """A worker in a process and a home of its own."""

    def __init__(self, home: Path, checkpoint: Path, url: str, case: Case):
        self._home = home
        home.mkdir()
        arguments = (home, checkpoint, url, case.devices, case.job_ms, case.queue_size)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                (sys.executable, "-P", "-m", "benchmarks.measure.simulated", *map(str, arguments)),
                env={**os.environ, "PYTHONPATH": str(PROJECT)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def sample(self) -> Sample:
        """Of itself alone: engines and judge have processes of their own."""
        process = psutil.Process(self._process.pid)
        times, state = process.cpu_times(), self._home / "state"
        return Sample(
            times.user + times.system,
            process.memory_info().rss,
            process.num_threads(),
            process.num_fds(),
            sum(file.stat().st_size for file in state.glob(f"{LEDGER}*")),
        )

    def insist_on_life(self) -> None:
        """Raises HordelibError with its last words."""
        if self._process.poll() is not None:
            lines = self._log.read_text("utf-8", "replace").splitlines()
            raise HordelibError("the worker ended:\n" + "\n".join(lines[-LINES_OF_LOG:]))

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    @property
    def _log(self) -> Path:
        return self._home / "output.log"


class Customer:
    """Has so many jobs wait at the horde that the worker always finds some."""

    def __init__(self, horde: ServedHorde, ahead: int):
        self._client = Client(horde.url(), CLIENT_KEY)
        self._horde = horde
        self._ahead = ahead
        self._posted = self._over = 0
        self._wishes = wishes()

    def wait_for(self, jobs: int, worker: SimulatedWorker) -> int:
        """Until so many are over; how many are. Raises HordelibError where the worker has ended."""
        while self._over < jobs:
            while self._posted < self._over + 2 * self._ahead:
                self._client.post(next(self._wishes))
                self._posted += 1
            self._over = self._horde.wait_for(min(self._over + self._ahead, jobs), LOOK_SECONDS)
            worker.insist_on_life()
        return self._over


def wishes() -> Iterator[Wish]:
    """Jobs of which no two within some hundred agree."""
    looks = itertools.cycle(itertools.product(SAMPLER_NAMES, STEPS))
    for number, (sampler, steps) in enumerate(looks):
        params = {"seed": str(number), "sampler_name": sampler, "steps": steps}
        yield Wish(f"picture number {number}", params, model=MODEL)


def measure(case: Case, checkpoint: Path) -> Row:
    reference = {MODEL: ReferenceModel("stable diffusion 1")}
    with tempfile.TemporaryDirectory() as folder, served_horde(reference) as horde:
        customer = Customer(horde, case.ahead)
        with _worker(Path(folder), checkpoint, horde, case) as worker:
            first = customer.wait_for(WARM_UP * case.devices, worker)
            before = worker.sample()
            last = customer.wait_for(first + case.jobs, worker)
            after = worker.sample()
        settled = horde.settled()[first - 1 : last]
    return _row(case, settled, before, after)


@contextmanager
def _worker(
    home: Path, checkpoint: Path, horde: ServedHorde, case: Case
) -> Generator[SimulatedWorker]:
    worker = SimulatedWorker(home / "worker", checkpoint, horde.url(), case)
    try:
        yield worker
    finally:
        worker.stop()


def _row(case: Case, settled: Sequence[Settled], before: Sample, after: Sample) -> Row:
    """`settled`: the last one before those that count, and all until the second samples."""
    counted = settled[1 : case.jobs + 1]
    faulted = sum(image.is_faulted for image in counted)
    cpu_seconds = after.cpu_seconds - before.cpu_seconds
    p50, p95 = np.percentile([image.taken_seconds for image in counted], (50, 95))
    return Row(
        kind=case.kind,
        jobs=len(counted) - faulted,
        faulted=faulted,
        queue_size=case.queue_size,
        devices=case.devices,
        job_ms=case.job_ms,
        seconds=counted[-1].submitted_at - settled[0].submitted_at,
        bridge_cpu_ms=1000 * cpu_seconds / (len(settled) - 1),
        p50_seconds=float(p50),
        p95_seconds=float(p95),
        start_rss_bytes=before.rss_bytes,
        end_rss_bytes=after.rss_bytes,
        ledger_bytes=after.ledger_bytes,
        threads=after.threads,
        files=after.files,
    )


def _cases(options: argparse.Namespace) -> tuple[Case, ...]:
    jobs, queues, devices = QUICK if options.quick else FULL
    return (
        *(Case("jobs", count) for count in jobs),
        *(Case("queue", QUEUE_JOBS, queue_size=size) for size in queues),
        *(
            Case("devices", DEVICE_JOBS * count, devices=count, job_ms=options.job_ms)
            for count in devices
        ),
    )


def _rows(options: argparse.Namespace) -> Iterator[Row]:
    checkpoint = ensure_checkpoint(MODELS)
    for case in _cases(options):
        yield measure(case, checkpoint)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--job-ms", type=positive, default=250, help="of a job on each of the devices (250)"
    )


BENCH = Bench(
    name="scale",
    help="what a job costs the worker's own process, with many jobs, a long queue, many devices",
    add_arguments=_add_arguments,
    rows=_rows,
    count=lambda options: len(_cases(options)),
    columns=(
        *("kind", "jobs", "faulted", "queue_size", "devices", "seconds", "jobs_per_second"),
        *("images_per_hour_and_device", "bridge_cpu_ms", "p50_seconds", "p95_seconds"),
        *("start_rss_bytes", "end_rss_bytes", "rss_per_1000_jobs_bytes", "ledger_bytes"),
        *("threads", "files"),
    ),
)
