"""What the engine does without HTTP and without reading models: one row for each kind of job.

Every kind runs once to warm up. The repeats are interleaved: all kinds once, then all again, so
that a machine that slows down meanwhile slows all of them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field, replace
from statistics import median

import psutil

from benchmarks.frame import MEASURED, Bench, Measured, positive
from benchmarks.gpu import GpuReading, read_gpu
from benchmarks.model_files import MODELS, add_models, models_of
from hordelib import Engine, Generation, GenerationParams
from hordelib.control_types import CONTROL_TYPES, ControlType
from hordelib.demo_model import FILE_NAME, ensure_control_net, ensure_lora
from hordelib.demo_model.shapes import Scene, draw
from hordelib.images import SourceImage
from hordelib.model import Model
from hordelib.params import MOST_IMAGES, Control, Lora
from hordelib.phases import OTHER
from hordelib.samplers import SAMPLERS
from hordelib.sharing import Member

CHUNK = "a red circle on a blue background, " * 8  # between one half and one chunk of 75 tokens
SCENE = Scene("circle", "red", "blue")


@dataclass(frozen=True, slots=True)
class Job:
    """The features of a kind of job; every kind differs from the plain one in one of them."""

    width: int = 128
    height: int = 128
    steps: int = 10
    sampler: str = "k_euler"
    images: int = 1
    loras: int = 0
    control: str = ""
    hires_fix: bool = False
    prompt_chunks: int = 1
    together: int = 1  # jobs with prompts, seeds and cfg scales of their own that share the batch


PLAIN = Job()
SHARED = tuple(
    replace(PLAIN, width=side, height=side, together=together)
    for side in (64, 128)
    for together in (1, 4, 8)
)
QUICK = (
    *SHARED,
    replace(PLAIN, images=4),
    replace(PLAIN, loras=1),
    replace(PLAIN, control="canny"),
)


@dataclass(frozen=True, slots=True)
class Repeat:
    seconds: float
    made: Generation
    resident_bytes: int  # of this process when it ended
    gpu: GpuReading | None


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of job. Medians of the repeats, with the fastest and the slowest one."""

    model: str
    family: str
    job: Job
    repeats: int
    seconds: float
    fastest_seconds: float
    slowest_seconds: float
    predicted_bytes: int
    measured_bytes: int  # of the device's memory, beside the weights, at most
    resident_bytes: int  # main memory of the process with all its models, at most
    phases: dict[str, float] = field(default_factory=dict[str, float])  # seconds
    marginal_seconds: float | None = None  # of a further image, against the next smaller batch
    gpu: GpuReading | None = None  # at the end of the last repeat

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
        """Of one step of the whole batch, with everything else of the job shared out."""
        return 1000 * self.seconds / self.job.steps


def jobs(options: argparse.Namespace, model: Model) -> tuple[Job, ...]:
    """The kinds of job that can be run with this model's files."""
    if options.quick:
        kinds = QUICK
    else:
        kinds = (
            *SHARED,
            *(replace(PLAIN, images=count) for count in range(2, options.batch + 1)),
            *(replace(PLAIN, width=side, height=side) for side in (256, 512)),
            *(replace(PLAIN, sampler=name) for name in SAMPLERS if name != PLAIN.sampler),
            *(replace(PLAIN, prompt_chunks=count) for count in range(2, options.chunks + 1)),
            replace(PLAIN, width=768, height=768, hires_fix=True),
            replace(PLAIN, loras=1),
            *(replace(PLAIN, control=kind) for kind in ControlType if not _weights(kind)),
        )
    is_demo = model.main.name == FILE_NAME  # the only one whose LoRA and ControlNet are here
    return tuple(kind for kind in kinds if is_demo or not (kind.loras or kind.control))


def measure(
    engine: Engine, model: Model, kinds: tuple[Job, ...], repeats: int
) -> Generator[Row | Measured]:
    """MEASURED for each run, and at the end, or when interrupted, the rows of what was run."""
    runs: dict[Job, list[Repeat]] = {kind: [] for kind in kinds}
    try:
        for turn in range(repeats + 1):
            for place, kind in enumerate(kinds):
                run = _run(engine, model, kind, seed=turn * len(kinds) + place)
                if turn:  # the first one warms up
                    runs[kind].append(run)
                yield MEASURED
    except KeyboardInterrupt:
        yield from _rows_of(model, runs)
        raise
    yield from _rows_of(model, runs)


def _rows_of(model: Model, runs: dict[Job, list[Repeat]]) -> Iterator[Row]:
    rows: dict[Job, Row] = {}
    for kind, repeats in runs.items():
        if repeats:
            rows[kind] = _row(model, kind, repeats, rows)
            yield rows[kind]


def _run(engine: Engine, model: Model, kind: Job, seed: int) -> Repeat:
    """The pictures arrive in main memory, so that the device is done when the clock stops."""
    members = [
        Member(str(i), _params(kind, seed * MOST_IMAGES + i, cfg=5.0 + i))
        for i in range(kind.together)
    ]
    loaded: list[float] = []
    generations = engine.generate_together(
        members, model, on_loaded=lambda: loaded.append(time.perf_counter())
    )
    seconds = time.perf_counter() - loaded[0]
    return Repeat(seconds, generations[0], psutil.Process().memory_info().rss, read_gpu())


def _row(model: Model, kind: Job, runs: list[Repeat], rows: dict[Job, Row]) -> Row:
    seconds = [run.seconds for run in runs]
    smaller = rows.get(replace(kind, images=kind.images - 1))
    middle = median(seconds)
    return Row(
        model=model.name,
        family=model.family.name,
        job=kind,
        repeats=len(runs),
        seconds=middle,
        fastest_seconds=min(seconds),
        slowest_seconds=max(seconds),
        predicted_bytes=runs[-1].made.predicted_bytes,
        measured_bytes=max(run.made.measured_bytes for run in runs),
        resident_bytes=max(run.resident_bytes for run in runs),
        phases={
            name: median(run.made.phases.get(name, 0.0) for run in runs)
            for name in runs[0].made.phases
        },
        marginal_seconds=middle - smaller.seconds if smaller else None,
        gpu=runs[-1].gpu,
    )


def _params(kind: Job, seed: int, cfg: float) -> GenerationParams:
    """A prompt of its own for each run, so that ComfyUI encodes it again."""
    return GenerationParams(
        prompt=f"number {seed}, " + CHUNK * kind.prompt_chunks,
        width=kind.width,
        height=kind.height,
        steps=kind.steps,
        cfg=cfg,
        sampler=SAMPLERS[kind.sampler],
        images=kind.images,
        seed=seed,
        hires_fix=kind.hires_fix,
        loras=(Lora("demo", ensure_lora(MODELS)),) * kind.loras,
        control=_control(kind) if kind.control else None,
    )


def _control(kind: Job) -> Control:
    image = SourceImage.of_pil(draw(SCENE, kind.width))
    return Control(type=ControlType(kind.control), image=image, model=ensure_control_net(MODELS))


def _weights(kind: ControlType) -> bool:
    return CONTROL_TYPES[kind].weights is not None


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_models(parser)
    parser.add_argument("--batch", type=positive, default=4, help="images of the largest batch (4)")
    parser.add_argument(
        "--chunks", type=positive, default=3, help="chunks of the longest prompt (3)"
    )
    parser.add_argument("--repeats", type=positive, default=3, help="runs of each kind of job (3)")


def _rows(options: argparse.Namespace) -> Iterator[Row | Measured]:
    with Engine() as engine:
        for model in models_of(options.model):
            yield from measure(engine, model, jobs(options, model), options.repeats)


def _count(options: argparse.Namespace) -> int:
    """Each kind's runs, one more to warm up, and its row."""
    kinds = sum(len(jobs(options, model)) for model in models_of(options.model))
    return kinds * (options.repeats + 2)


BENCH = Bench(
    name="engine",
    help="what the engine does without HTTP and without reading models",
    add_arguments=_add_arguments,
    rows=_rows,
    count=_count,
    columns=(
        *(f"job.{name}" for name in ("width", "steps", "sampler", "images", "loras", "control")),
        *("job.hires_fix", "job.prompt_chunks", "job.together"),
        *("seconds", "fastest_seconds", "slowest_seconds", "seconds_per_job", "overhead_ms"),
        *("images_per_second", "step_ms", "marginal_seconds", "predicted_bytes", "measured_bytes"),
    ),
)
