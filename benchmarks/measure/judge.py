"""What it takes to judge a picture: the whole way through the judge's process, on the CPU.

horde_safety takes part where it and its weights are there. The weights' content makes no difference
to any time, so that they are not verified here.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import psutil

from benchmarks.results.frame import Bench
from hordelib.job.images import Picture
from hordelib.safety.csam import FOLDER, WEIGHTS, is_installed
from worker.children.judge import JudgePatience, JudgeProcess
from worker.children.messages import JudgeSettings

SIDES = (512, 1024, 2048)
ROUNDS, QUICK_ROUNDS = 10, 3
PATIENCE = JudgePatience(start=1800, heartbeat=120, picture=600)  # a slow machine is measured, too


@dataclass(frozen=True, slots=True)
class Row:
    """Pictures of `side` x `side` pixels; the seconds are medians, of one picture each."""

    judges: str
    side: int
    picture_seconds: float
    processor_seconds: float  # of all threads together
    start_seconds: float
    memory_bytes: int  # of the process, what it shares with others included


def _rows(options: argparse.Namespace) -> Iterator[Row]:
    for horde_safety in (False, True) if _has_horde_safety(options.models) else (False,):
        judge = JudgeProcess(
            JudgeSettings(options.models, horde_safety, options.models / "judge.log"), PATIENCE
        )
        started = time.perf_counter()
        judges = judge.start()
        start_seconds = time.perf_counter() - started
        try:
            for side in SIDES:
                rounds = QUICK_ROUNDS if options.quick else ROUNDS
                yield _measured(judge, judges, side, rounds, start_seconds)
        finally:
            judge.stop()


def _measured(
    judge: JudgeProcess, judges: str, side: int, rounds: int, start_seconds: float
) -> Row:
    process = psutil.Process(judge.pid)
    webp = Picture(side, side, bytes(range(256)) * (side * side * 3 // 256), seed=0).to_webp()
    judge.judge("first", 0, webp, "")
    walls: list[float] = []
    before = _processor_seconds(process)
    for index in range(rounds):
        started = time.perf_counter()
        judge.judge("measured", index, webp, "a picture")
        walls.append(time.perf_counter() - started)
    processor_seconds = (_processor_seconds(process) - before) / rounds
    memory_bytes = process.memory_info().rss
    return Row(judges, side, median(walls), processor_seconds, start_seconds, memory_bytes)


def _processor_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def _has_horde_safety(models: Path) -> bool:
    return is_installed() and all((models / FOLDER / each.file).is_file() for each in WEIGHTS)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--models", type=Path, default=Path("models"), help="folder with horde_safety's weights"
    )


BENCH = Bench(
    name="judge",
    help="what it takes to judge a picture before it leaves",
    add_arguments=_add_arguments,
    rows=_rows,
    count=lambda options: len(SIDES) * (1 + _has_horde_safety(options.models)),
)
