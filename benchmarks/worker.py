"""A whole worker against a local horde that takes its time: pictures an hour, and where time goes.

The device's share of busy time and the phases are those of worker.timeline. Jobs are waiting all
the time; the first ones, which warm up, and the last ones, after which there is nothing left to
fetch, are not counted.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import os
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.frame import Bench, positive
from benchmarks.model_files import MODELS
from hordelib.demo_model import ensure_checkpoint
from hordelib.model import Model
from worker.assembly import Models, make_bridge
from worker.board import Board
from worker.books import Books
from worker.bridge import Bridge
from worker.demo import CLIENT_KEY, Client, demo_config
from worker.ledger import Ledger
from worker.sandbox import Endpoint, Latency, ReferenceModel, Sandbox
from worker.sandbox.books import GenerationEntry
from worker.timeline import Phase, busy_share
from worker.wishes import Wish

WARM_UP, RUN_OUT = 6, 8  # jobs before and after those that count
CALLS = (Endpoint.POP, Endpoint.SUBMIT, Endpoint.UPLOAD)  # of a worker, for each job
POLL_SECONDS = 0.1
LEAST_SHOWN = 0.1  # percent


@dataclass(frozen=True, slots=True)
class Workload:
    """Jobs of `models` models in turn; each has one set of `params`, in turn, too."""

    name: str
    models: int = 1
    params: tuple[Mapping[str, object], ...] = ({},)


WORKLOADS = (
    Workload("one model"),
    Workload("three models in turn", models=3),
    Workload("five models in turn", models=5),
    Workload("four pictures a job", params=({"n": 4},)),
    Workload(
        "sizes, samplers and steps in turn",
        params=(
            {"width": 64, "height": 64},
            {"steps": 20},
            {"sampler_name": "k_euler_a"},
            {"width": 192, "karras": True, "sampler_name": "k_dpmpp_2m"},
        ),
    ),
)
PLAIN: Mapping[str, object] = {"width": 128, "height": 128, "steps": 12, "sampler_name": "k_euler"}


@dataclass(frozen=True, slots=True)
class Row:
    workload: str
    latency_ms: int  # of each of the worker's calls
    jobs: int
    images: int
    seconds: float
    busy_percent: float  # of the time, the device works on prompts, steps or pictures
    p50_seconds: float  # from the pop to the submit, as the horde sees it
    p95_seconds: float
    p99_seconds: float
    bridge_cpu_ms: float  # a job; the local horde, which runs in the same process, included
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
    """The time between two moments of a running worker."""

    seconds: float
    cpu_seconds: float
    phases: Mapping[Phase, float]


def measure(workload: Workload, jobs: int, latency_seconds: float, checkpoint: Path) -> Row:
    with tempfile.TemporaryDirectory() as folder, Sandbox(_reference(workload), limits={}) as horde:
        for call in CALLS:
            horde.faults.inject(call, Latency(latency_seconds))
        client = Client(horde.url, CLIENT_KEY)
        ids = [client.post(wish) for wish in _wishes(workload, WARM_UP + jobs + RUN_OUT)]
        counted = ids[WARM_UP : WARM_UP + jobs]
        board = Board()
        with _serving(_bridge(workload, horde.url, Path(folder), checkpoint, board)) as bridge:
            _wait_for(ids[:WARM_UP], horde, bridge)
            window = _window(board, lambda: _wait_for(counted, horde, bridge))
        images = [entry for each in counted for entry in horde.books().of_request(each)]
    return _row(workload, round(1000 * latency_seconds), window, images, jobs)


def _window(board: Board, until: Callable[[], None]) -> Window:
    started, before, cpu = time.monotonic(), board.timeline.seconds(), _cpu_seconds()
    until()
    after = board.timeline.seconds()
    spent = {phase: after[phase] - before[phase] for phase in Phase}
    return Window(time.monotonic() - started, _cpu_seconds() - cpu, spent)


def _row(
    workload: Workload, latency_ms: int, window: Window, images: list[GenerationEntry], jobs: int
) -> Row:
    taken = [image.settlings[0].at - image.popped_at for image in images]
    p50, p95, p99 = (float(each) for each in np.percentile(taken, (50, 95, 99)))
    whole = sum(window.phases.values())
    return Row(
        workload=workload.name,
        latency_ms=latency_ms,
        jobs=jobs,
        images=len(images),
        seconds=window.seconds,
        busy_percent=100 * busy_share(window.phases),
        p50_seconds=p50,
        p95_seconds=p95,
        p99_seconds=p99,
        bridge_cpu_ms=1000 * window.cpu_seconds / jobs,
        percent={phase.value: 100 * each / whole for phase, each in window.phases.items() if each},
    )


def _names(workload: Workload) -> list[str]:
    return [f"model {number}" for number in range(1, workload.models + 1)]


def _reference(workload: Workload) -> dict[str, ReferenceModel]:
    return {name: ReferenceModel(baseline="stable diffusion 1") for name in _names(workload)}


def _wishes(workload: Workload, jobs: int) -> Iterator[Wish]:
    names, params = itertools.cycle(_names(workload)), itertools.cycle(workload.params)
    for number, name, changes in zip(range(jobs), names, params, strict=False):
        prompt = f"a red circle on a blue background, number {number}"
        yield Wish(prompt, {**PLAIN, **changes, "seed": str(number)}, model=name)


def _bridge(workload: Workload, url: str, home: Path, checkpoint: Path, board: Board) -> Bridge:
    """Each model has a name and a place in memory of its own; on disk they are one file."""
    models: dict[str, Model] = {}
    for name in _names(workload):
        file = home / f"{name}.safetensors"
        file.symlink_to(checkpoint)
        models[name] = Model.of_checkpoint(file, name)
    config = demo_config(url, models=tuple(models))
    return make_bridge(config, home, Models(models, ()), Books(Ledger(None), board))


@contextmanager
def _serving(bridge: Bridge) -> Generator[Bridge]:
    bridge.start()
    try:
        yield bridge
    finally:
        logging.disable()  # jobs of no interest are left behind
        bridge.abandon()
        bridge.join(10)
        logging.disable(logging.NOTSET)


def _wait_for(requests: list[str], horde: Sandbox, bridge: Bridge) -> None:
    """Until they are over. Raises what stops the bridge before."""
    while not all(horde.books().request(each).done for each in requests):
        if bridge.failure is not None:
            raise bridge.failure
        time.sleep(POLL_SECONDS)


def _cpu_seconds() -> float:
    """Of this process; the engine and the judge have their own."""
    times = os.times()
    return times.user + times.system


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--latency", type=positive, default=200, help="ms of each call (200)")
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
