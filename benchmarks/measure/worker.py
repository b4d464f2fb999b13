"""A whole worker against a local horde that takes its time: pictures an hour, and where time goes.

The device's share of busy time and the phases are those of worker.jobs.timeline. Jobs are waiting
all the time; the first ones, which warm up, and the last ones, after which there is nothing left to
fetch, are not counted.
"""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from benchmarks.measure.horde import ServedHorde, Settled, served_horde
from benchmarks.measure.model_files import MODELS
from benchmarks.measure.workloads import WORKLOADS, Workload, lay_out
from benchmarks.results.frame import Bench, positive, whole
from hordelib.demo_model import ensure_checkpoint
from hordelib.files.model import Model
from worker.demo.run import CLIENT_KEY, Client, demo_config
from worker.demo.sample_requests import Wish
from worker.horde.api import Offer
from worker.jobs.journal import Journal
from worker.jobs.ledger import FILE as LEDGER
from worker.jobs.ledger import Ledger
from worker.jobs.timeline import Phase, Timeline, busy_share
from worker.line.bridge import Bridge
from worker.models.offer import offer_maker
from worker.models.opening import Models
from worker.sandbox import ReferenceModel
from worker.service.assembly import make_bridge, make_intake

WARM_UP, RUN_OUT = 6, 8  # jobs before and after those that count
LOOK_SECONDS = 1.0  # until the next look whether the bridge has failed
STOP_SECONDS = 30.0  # for what is left of the jobs
LEAST_SHOWN = 0.1  # percent


@dataclass(frozen=True, slots=True)
class Row:
    workload: str
    latency_ms: int  # of each of the worker's calls
    jobs: int  # as many as the pictures of the time that counts are of
    images: int  # that did not fail
    seconds: float
    busy_percent: float  # of the time, the device works on prompts, steps or pictures
    p50_seconds: float  # from the pop to the submit, as the horde sees it
    p95_seconds: float
    p99_seconds: float
    bridge_cpu_ms: float  # a job: of the bridge's process, whose children and horde have their own
    percent: dict[str, float] = field(
        default_factory=dict[str, float]
    )  # of each phase; sums to 100

    @property
    def split(self) -> str:
        """The phases in words, the largest first."""
        shares = sorted(self.percent.items(), key=lambda each: -each[1])
        return ", ".join(f"{name} {share:.1f} %" for name, share in shares if share >= LEAST_SHOWN)

    @property
    def images_per_hour(self) -> float:
        return 3600 * self.images / self.seconds


@dataclass(frozen=True, slots=True)
class Window:
    """The time between two moments of a running worker; its phases are those of whole runs."""

    seconds: float
    cpu_seconds: float
    phases: Mapping[Phase, float]


def measure(workload: Workload, jobs: int, latency_seconds: float, checkpoint: Path) -> Row:
    reference = {name: ReferenceModel("stable diffusion 1") for name in workload.model_names}
    with tempfile.TemporaryDirectory() as folder, served_horde(reference, latency_seconds) as horde:
        client = Client(horde.url(), CLIENT_KEY)
        wishes = list(workload.wishes(WARM_UP + jobs + RUN_OUT))
        for wish in wishes:
            client.post(wish)
        home = Path(folder)
        journal = Journal(Ledger(home / "state" / LEDGER))
        with serving(_bridge(workload, horde.url(), home, checkpoint, journal)) as bridge:
            before = _wait_for(_images(wishes[:WARM_UP]), horde, bridge)
            wanted = _images(wishes[WARM_UP : WARM_UP + jobs])
            window = _window(journal.timeline, lambda: _wait_for(before + wanted, horde, bridge))
        counted = horde.settled()[before : before + wanted]
    return _row(workload, round(1000 * latency_seconds), jobs, window, counted)


def _images(wishes: Sequence[Wish]) -> int:
    return sum(wish.images for wish in wishes)


def _window(timeline: Timeline, until: Callable[[], object]) -> Window:
    started, before, cpu = time.monotonic(), timeline.divided(), _cpu_seconds()
    until()
    after = timeline.divided()
    spent = {phase: after[phase] - before[phase] for phase in Phase}
    return Window(time.monotonic() - started, _cpu_seconds() - cpu, spent)


def _row(
    workload: Workload, latency_ms: int, jobs: int, window: Window, images: list[Settled]
) -> Row:
    """`images`: those of the window, as many as `jobs` jobs have; it may cut a job in two."""
    taken = [image.taken_seconds for image in images]
    p50, p95, p99 = (float(each) for each in np.percentile(taken, (50, 95, 99)))
    whole = sum(window.phases.values())
    return Row(
        workload=workload.name,
        latency_ms=latency_ms,
        jobs=jobs,
        images=sum(not image.is_faulted for image in images),
        seconds=window.seconds,
        busy_percent=100 * busy_share(window.phases),
        p50_seconds=p50,
        p95_seconds=p95,
        p99_seconds=p99,
        bridge_cpu_ms=1000 * window.cpu_seconds / jobs,
        percent={phase.value: 100 * each / whole for phase, each in window.phases.items() if each},
    )


def _bridge(workload: Workload, url: str, home: Path, checkpoint: Path, journal: Journal) -> Bridge:
    """Each model has a name and a place in memory of its own; on disk they are one file.

    Of each kind of job that the workloads have is enough there to offer it.
    """
    lay_out(home / "models")
    served: dict[str, Model] = {}
    for name in workload.model_names:
        file = home / f"{name}.safetensors"
        file.symlink_to(checkpoint)
        served[name] = Model.of_checkpoint(file, name)
    config, models = demo_config(url, models=tuple(served)), Models(served, ())
    make_usual = offer_maker(config, home)

    def make_offer(models: Mapping[str, Model], broken: frozenset[Path]) -> Offer:
        usual = make_usual(models, broken)
        return replace(usual, allow_controlnet=True, allow_post_processing=True)

    intake = make_intake(config, home, models, make_offer)
    return make_bridge(config, home, models, journal, intake=intake)


@contextmanager
def serving(bridge: Bridge) -> Generator[Bridge]:
    bridge.start()
    try:
        yield bridge
    finally:
        logging.disable()  # jobs of no interest are left behind
        bridge.stop(0)
        if not bridge.join(STOP_SECONDS):
            bridge.abandon()
        logging.disable(logging.NOTSET)


def _wait_for(images: int, horde: ServedHorde, bridge: Bridge) -> int:
    """Until so many are over; how many are. Raises what stops the bridge before."""
    while (over := horde.wait_for(images, LOOK_SECONDS)) < images:
        if bridge.failure is not None:
            raise bridge.failure
    return over


def _cpu_seconds() -> float:
    """Of this process; the engine and the judge have their own."""
    times = os.times()
    return times.user + times.system


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--latency", type=whole, default=200, help="ms of each call (200)")
    parser.add_argument("--jobs", type=positive, help="that count (24; quick: 12)")


def _rows(options: argparse.Namespace) -> Iterator[Row]:
    checkpoint = ensure_checkpoint(MODELS)
    jobs = options.jobs or (12 if options.quick else 24)
    for workload in _workloads(options):
        yield measure(workload, jobs, options.latency / 1000, checkpoint)


def _workloads(options: argparse.Namespace) -> tuple[Workload, ...]:
    return WORKLOADS[:2] if options.quick else WORKLOADS


BENCH = Bench(
    name="worker",
    help="a whole worker against a local horde: pictures an hour, and where time goes",
    add_arguments=_add_arguments,
    rows=_rows,
    count=lambda options: len(_workloads(options)),
    columns=(
        *("workload", "latency_ms", "jobs", "images", "seconds", "images_per_hour"),
        *("busy_percent", "p50_seconds", "p95_seconds", "p99_seconds", "bridge_cpu_ms", "split"),
    ),
)
