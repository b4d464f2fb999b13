"""What the engine does without HTTP and without reading models: one row for each kind of job.

Every kind runs once to warm up. The repeats are interleaved: all kinds once, then all again, so
that a machine that slows down meanwhile slows all of them.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

import psutil

from benchmarks.measure.engine_forms import form_jobs, forms_left_out, run_form
from benchmarks.measure.engine_jobs import (
    GRAIN,
    STEPS,
    Files,
    Job,
    kinds_of_job,
    left_out,
    params_of,
)
from benchmarks.measure.gpu import GpuReading, WatchedGpu
from benchmarks.measure.model_files import add_models, models_of
from benchmarks.results.document import BadInput
from benchmarks.results.frame import MEASURED, Bench, Measured, positive
from hordelib import Engine, Generation
from hordelib.alchemy.device_forms import NO_MODEL
from hordelib.comfyui.phases import OTHER, SAMPLING
from hordelib.errors import (
    GenerationFailed,
    HordelibError,
    JobError,
    ModelBroken,
    ModelMissing,
)
from hordelib.files.model import Model
from hordelib.job.batching import Member
from hordelib.job.notes import MetadataType
from hordelib.job.params import MOST_IMAGES


@dataclass(frozen=True, slots=True)
class Repeat:
    seconds: float
    made: Generation
    resident_bytes: int  # of this process when it ended
    gpu: GpuReading | None  # while it ran


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of job. Medians of the repeats, with the fastest and the slowest one."""

    model: str
    family: str
    job: Job
    repeats: int  # 0: it was only run to warm up
    seconds: float
    fastest_seconds: float
    slowest_seconds: float
    predicted_bytes: int
    measured_bytes: int | None  # of a card's memory, beside the weights, at most
    resident_bytes: int  # main memory of the process with all its models, after a run at most
    phases: dict[str, float] = field(default_factory=dict[str, float])  # seconds
    marginal_seconds: float | None = None  # of a further image, against the next smaller batch
    gpu: GpuReading | None = None  # while the last repeat ran

    @property
    def images_per_second(self) -> float:
        return self.job.images * self.job.together / self.seconds

    @property
    def seconds_per_job(self) -> float:
        return self.seconds / self.job.together

    @property
    def overhead_ms(self) -> float:
        """Of a job: all that is neither text encoding, sampling, decoding nor post-processing."""
        return 1000 * self.phases.get(OTHER, 0.0) / self.job.together

    @property
    def megapixelsteps_per_second(self) -> float:
        pixels = self.job.width * self.job.height * self.job.images * self.job.together
        return pixels * self.job.steps / 1e6 / self.seconds

    @property
    def step_ms(self) -> float:
        """Of one step of the whole batch, without text, decoding and what is around them."""
        return 1000 * self.phases.get(SAMPLING, 0.0) / self.job.steps


@dataclass(frozen=True, slots=True)
class Failure:
    """A kind of job that can't be measured here, such as one without room."""

    model: str
    family: str
    job: Job
    error: str


class _Kind:
    """A kind of job and its runs; none any more once one has failed."""

    def __init__(self, job: Job):
        self.job = job
        self.error = ""
        self._runs: list[Repeat] = []

    @property
    def repeats(self) -> int:
        """The first run warms up."""
        return max(0, len(self._runs) - 1)

    @property
    def counted(self) -> list[Repeat]:
        """The one that warms up counts only where there is no other."""
        return self._runs[1:] or self._runs

    def run(self, engine: Engine, model: Model, files: Files, seed: int) -> None:
        if self.error:
            return
        try:
            self._runs.append(_run(engine, model, files, self.job, seed))
        except (ModelBroken, ModelMissing):  # no kind of job can be measured
            raise
        except JobError as error:
            self.error = str(error)


def measure(
    engine: Engine, model: Model, jobs: Sequence[Job], files: Files, repeats: int
) -> Generator[Row | Failure | Measured]:
    """MEASURED for each run, and at the end, or when interrupted, the rows of what was run."""
    kinds = [_Kind(job) for job in jobs]
    try:
        for turn in range(repeats + 1):
            for place, kind in enumerate(kinds):
                kind.run(engine, model, files, seed=turn * len(kinds) + place)
                yield MEASURED
    except (KeyboardInterrupt, HordelibError):
        yield from _rows_of(model, kinds)
        raise
    yield from _rows_of(model, kinds)


def _rows_of(model: Model, kinds: Sequence[_Kind]) -> Iterator[Row | Failure]:
    rows: dict[Job, Row] = {}
    for kind in kinds:
        if kind.error:
            yield Failure(model.name, model.family.name, kind.job, kind.error)
        elif kind.counted:
            rows[kind.job] = _row(model, kind, rows)
            yield rows[kind.job]


def _run(engine: Engine, model: Model, files: Files, kind: Job, seed: int) -> Repeat:
    """The pictures arrive in main memory, so that the device is done when the clock stops."""
    if kind.form:
        with WatchedGpu() as gpu:
            seconds, made = run_form(engine, kind, seed)
        return Repeat(seconds, made, psutil.Process().memory_info().rss, gpu.reading)
    members = [
        Member(str(i), params_of(kind, files, seed * MOST_IMAGES + i, cfg=5.0 + i))
        for i in range(kind.together)
    ]
    loaded: list[float] = []
    with WatchedGpu() as gpu:
        generations = engine.generate_together(
            members, model, on_loaded=lambda: loaded.append(time.perf_counter())
        )
        seconds = time.perf_counter() - loaded[0]
    _insist_on_lora(generations[0], files, model)
    return Repeat(seconds, generations[0], psutil.Process().memory_info().rss, gpu.reading)


def _insist_on_lora(made: Generation, files: Files, model: Model) -> None:
    """A job without its LoRA is served, and its client told; here it would say nothing."""
    if files.lora is not None and any(note.type is MetadataType.LORA for note in made.notes):
        raise GenerationFailed(f"{files.lora.name} can't be used as a LoRA of {model.family.name}")


def _row(model: Model, kind: _Kind, rows: Mapping[Job, Row]) -> Row:
    runs = kind.counted
    seconds = [run.seconds for run in runs]
    middle = median(seconds)
    return Row(
        model=model.name,
        family=model.family.name,
        job=kind.job,
        repeats=kind.repeats,
        seconds=middle,
        fastest_seconds=min(seconds),
        slowest_seconds=max(seconds),
        predicted_bytes=runs[-1].made.predicted_bytes,
        measured_bytes=max(run.made.measured_bytes for run in runs) if runs[-1].gpu else None,
        resident_bytes=max(run.resident_bytes for run in runs),
        phases={
            name: median(run.made.phases.get(name, 0.0) for run in runs)
            for name in runs[0].made.phases
        },
        marginal_seconds=_marginal_seconds(kind.job, middle, rows),
        gpu=runs[-1].gpu,
    )


def _marginal_seconds(kind: Job, seconds: float, rows: Mapping[Job, Row]) -> float | None:
    """Of a further picture, against the next smaller batch of the same; None without one."""
    smaller = [
        row
        for job, row in rows.items()
        if replace(job, images=kind.images, together=kind.together) == kind
        and (job.images <= kind.images and job.together <= kind.together)
    ]
    if not smaller:
        return None
    next_smaller = max(smaller, key=lambda row: _pictures(row.job))
    more = _pictures(kind) - _pictures(next_smaller.job)
    return (seconds - next_smaller.seconds) / more


def _pictures(job: Job) -> int:
    return job.images * job.together


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_models(parser)
    parser.add_argument("--batch", type=positive, default=4, help="images of the largest batch (4)")
    parser.add_argument(
        "--chunks", type=positive, default=3, help="chunks of the longest prompt (3)"
    )
    parser.add_argument("--repeats", type=positive, default=3, help="runs of each kind of job (3)")
    parser.add_argument(
        "--size", type=size, metavar="WxH", help="of the plain job (what its family is made for)"
    )
    parser.add_argument("--steps", type=positive, help=f"of each job ({STEPS})")
    parser.add_argument("--lora", type=Path, metavar="FILE", help="one to measure jobs with")


def size(text: str) -> tuple[int, int]:
    """`832x1216`, or `1024` for a square; multiples of GRAIN."""
    sides = text.split("x")
    numbers = [int(side) for side in sides if side.isdecimal()]
    are_sides = all(number and number % GRAIN == 0 for number in numbers)
    if len(numbers) != len(sides) or len(sides) > 2 or not are_sides:
        told = f"{text!r} is no size: 1024 or 832x1216, in multiples of {GRAIN}"
        raise argparse.ArgumentTypeError(told)
    return numbers[0], numbers[-1]


def _rows(options: argparse.Namespace) -> Iterator[Row | Failure | Measured]:
    with Engine() as engine:
        for model in models_of(options.model):
            for line in left_out(options, model):
                print(line, file=sys.stderr)
            files = Files.of(model, options.lora)
            yield from measure(engine, model, kinds_of_job(options, model), files, options.repeats)
        for line in forms_left_out():
            print(line, file=sys.stderr)
        forms = form_jobs(options)
        yield from measure(engine, NO_MODEL, forms, Files(None, ()), options.repeats)


def _count(options: argparse.Namespace) -> int:
    """Each kind's runs, one more to warm up, and its row."""
    if options.lora is not None and not options.lora.is_file():
        raise BadInput(f"{options.lora}: no such file")
    kinds = sum(len(kinds_of_job(options, model)) for model in models_of(options.model))
    return (kinds + len(form_jobs(options))) * (options.repeats + 2)


BENCH = Bench(
    name="engine",
    help="what the engine does without HTTP and without reading models",
    add_arguments=_add_arguments,
    rows=_rows,
    count=_count,
    columns=(
        *(f"job.{name}" for name in ("width", "height", "steps", "sampler", "images", "loras")),
        *("job.form", "job.control", "job.hires_fix", "job.prompt_chunks", "job.together"),
        *("seconds", "seconds_per_job", "overhead_ms", "step_ms", "marginal_seconds"),
        *("images_per_second", "megapixelsteps_per_second", "measured_bytes", "error"),
    ),
)
