"""One command for the day that there is a card: each step in a process of its own, one table.

What matters most comes first, since the time may end anywhere. Nothing is downloaded: models of
Stable Diffusion 1.5 and XL are made on the spot, whose weights are random numbers. Without a card
all runs with the demo model in tiny sizes, which shows that it would run and nothing more.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.results.document import BadInput
from benchmarks.results.frame import Bench, positive
from worker.devices import first_card

FOUND = "FOUND "  # begins the lines of a step's output that are read here
LEAST_SECONDS = 15.0  # that a step is begun with
NEEDED_BYTES = 10 << 30  # for the two models
MINUTES = 12
FIGURES = 6  # of a step, about: for the progress


@dataclass(frozen=True, slots=True)
class Step:
    """A function of `steps`, and how long it may take."""

    name: str
    most_seconds: float
    variables: Mapping[str, str] | None = None
    function: str = ""


STEPS = (
    Step("facts", 60),
    Step("models", 120),
    Step("tests", 150),
    Step("pictures", 120),
    Step("plain ComfyUI", 100, function="plain"),
    Step("merged", 60),
    Step("equal", 60),
    Step("switch", 60),
    Step("out of memory", 60, function="out_of_memory"),
    Step("small cards", 60, function="small_cards"),
    Step("LoRAs", 45, function="loras"),
    Step("overhead", 30),
    Step(
        "switch, expandable segments",
        45,
        {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"},
        "switch",
    ),
    Step("knobs", 60),
    Step("streamed", 45),
    Step("soak", 60),
)


NEEDS_NO_MODELS = {"facts", "tests"}


@dataclass(frozen=True, slots=True)
class Found:
    """One figure of a step, or what kept the step from its end."""

    step: str
    what: str = ""
    value: float | None = None
    unit: str = ""
    told: str = ""  # what is no number
    error: str = ""


def _rows(options: argparse.Namespace) -> Iterator[Found]:
    end = time.monotonic() + 60 * options.minutes
    with TemporaryDirectory(dir=options.folder, prefix="card ") as folder:
        for step in _steps(options):
            left_seconds = end - time.monotonic()
            if left_seconds < LEAST_SECONDS:
                yield Found(step.name, error="there was no time left for it")
            else:
                yield from _run(step, Path(folder), min(step.most_seconds, left_seconds), options)


def _run(step: Step, folder: Path, seconds: float, options: argparse.Namespace) -> Generator[Found]:
    """What it finds before its time is over counts."""
    function = step.function or step.name
    command = [sys.executable, "-P", "-m", "benchmarks.card.steps", function, str(folder)]
    command += ["--tiny"] if _is_tiny(options) else []
    environment = {**os.environ, **(step.variables or {})}
    log = folder / f"{step.name}.log"
    started = time.monotonic()
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment,
            start_new_session=True,  # it and its children end together
        ) as process,
    ):
        timer = threading.Timer(seconds, _end, (process,))
        timer.start()
        try:
            for line in process.stdout or ():
                if line.startswith(FOUND):
                    yield Found(step.name, **json.loads(line.removeprefix(FOUND)))
            process.wait()
        except BaseException:  # Ctrl-C, or nobody wants more
            _end(process)
            raise
        finally:
            timer.cancel()
    if process.returncode and time.monotonic() - started >= seconds:
        yield Found(step.name, error=f"ended after {seconds:.0f} s: its time was over")
    elif process.returncode:
        yield Found(step.name, error=_last_line(log) or f"exit code {process.returncode}")


def _end(process: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _last_line(log: Path) -> str:
    lines = log.read_text("utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else ""


def _is_tiny(options: argparse.Namespace) -> bool:
    return bool(options.quick) or first_card() is None


def _steps(options: argparse.Namespace) -> tuple[Step, ...]:
    wanted = options.only.split(",") if options.only else [step.name for step in STEPS]
    if unknown := set(wanted) - {step.name for step in STEPS}:
        told = ", ".join(step.name for step in STEPS)
        raise BadInput(f"--only {', '.join(sorted(unknown))}: there are {told}")
    has_models = not NEEDS_NO_MODELS.issuperset(wanted)
    return tuple(
        step for step in STEPS if step.name in wanted or (has_models and step.name == "models")
    )


def _count(options: argparse.Namespace) -> int:
    folder = options.folder
    if folder is not None and not folder.is_dir():
        raise BadInput(f"--folder {folder}: there is no such folder")
    return FIGURES * len(_steps(options))


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--minutes", type=positive, default=MINUTES, help=f"that it takes at most ({MINUTES})"
    )
    parser.add_argument("--only", default="", metavar="STEP,STEP", help="these steps")
    parser.add_argument(
        "--folder",
        type=Path,
        help=f"where the models are made, {NEEDED_BYTES >> 30} GiB (the system's temporary folder)",
    )


BENCH = Bench(
    name="card",
    help="what an NVIDIA card does: facts, tests, speeds beside plain ComfyUI, small memory",
    add_arguments=_add_arguments,
    rows=_rows,
    count=_count,
    columns=("step", "what", "value", "unit", "told", "error"),
)
