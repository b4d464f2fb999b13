"""How near the predicted seconds of jobs are: each job is predicted before it is run and learnt.

So every job is one that the predictor has not seen. How far apart two runs of the same work are on
this machine is measured beside it: no prediction can be nearer than that.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from benchmarks.document import BadInput
from benchmarks.drawn_jobs import Kinds, draw_jobs
from benchmarks.frame import Bench, positive
from benchmarks.model_files import MODELS, add_models, models_of
from hordelib import Engine
from hordelib.demo_model import FILE_NAME, ensure_control_net, ensure_lora
from hordelib.families import Family
from hordelib.model import Model
from hordelib.params import MAX_SIDE, SIDE_STEP, GenerationParams
from worker.assembly import make_forecast
from worker.errors import StateTaken
from worker.seconds_predictor import SecondsPredictor
from worker.state_folder import StateFolder

BLOCK, QUICK_BLOCK = 50, 20  # jobs of a row
BLOCKS, QUICK_BLOCKS = 6, 4
REPEATED_EVERY = 5  # jobs: one is run again


@dataclass(frozen=True, slots=True)
class Row:
    """Some jobs in a row. Percent: how far off, of the seconds that the job took."""

    model: str
    learnt: int  # jobs before the first of these
    jobs: int
    median_percent: float  # of the predictions
    p90_percent: float
    within_percent: float  # of the jobs: between the prediction's low and high seconds
    again_median_percent: float  # of the same work once more, against the first time
    again_p90_percent: float
    median_seconds: float  # that a job took


@dataclass(frozen=True, slots=True)
class Timed:
    """A job that was run. `off`: the prediction's relative error; `within`: its bounds held."""

    job: GenerationParams
    family: Family
    seconds: float
    off: float
    within: bool


@dataclass(slots=True)
class Course:
    """Jobs one after the other, each predicted and then learnt."""

    engine: Engine
    model: Model
    predictor: SecondsPredictor = field(default_factory=SecondsPredictor)
    done: list[Timed] = field(default_factory=list[Timed])

    def rows(self, jobs: Iterable[GenerationParams], block: int) -> Iterator[Row]:
        """One for each `block` jobs. Of the very first job nothing is predicted."""
        first, *others = jobs
        self.predictor.learn(first, self.model.family, self._run(first))
        for start in range(0, len(others), block):
            before, again = len(self.done), list[float]()
            for number, job in enumerate(others[start : start + block]):
                self._predict_and_learn(job)
                if number % REPEATED_EVERY == 0:
                    again.append(self._run(_once_more(job)) / self.done[-1].seconds - 1)
            yield _row(self.model.name, before + 1, self.done[before:], again)

    def teach(self, folder: Path) -> None:
        """The worker of this state folder predicts as if it had served these jobs."""
        with closing(_open(folder)) as state:
            forecast = make_forecast(state.path)
            for each in self.done:
                forecast.learn(each.job, each.family, each.seconds)
            forecast.keep()

    def _predict_and_learn(self, job: GenerationParams) -> None:
        family = self.model.family
        expected = self.predictor.predict(job, family)
        seconds = self._run(job)
        self.predictor.learn(job, family, seconds)
        within = expected.low <= seconds <= expected.high
        self.done.append(Timed(job, family, seconds, expected.seconds / seconds - 1, within))

    def _run(self, job: GenerationParams) -> float:
        return self.engine.generate(job, self.model).run_seconds


def _row(model: str, learnt: int, done: list[Timed], again: list[float]) -> Row:
    median, p90 = _percent([each.off for each in done])
    again_median, again_p90 = _percent(again)
    return Row(
        model=model,
        learnt=learnt,
        jobs=len(done),
        median_percent=median,
        p90_percent=p90,
        within_percent=100 * sum(each.within for each in done) / len(done),
        again_median_percent=again_median,
        again_p90_percent=again_p90,
        median_seconds=float(np.median([each.seconds for each in done])),
    )


def _percent(off: list[float]) -> tuple[float, float]:
    """Median and 90th percentile of how large they are."""
    median, p90 = np.quantile(np.abs(off), (0.5, 0.9))
    return 100 * float(median), 100 * float(p90)


def _once_more(job: GenerationParams) -> GenerationParams:
    """The same work, of which ComfyUI has nothing left."""
    return replace(job, prompt=job.prompt.replace("number", "repeat", 1), seed=job.seed + 1)


def _rows(options: argparse.Namespace) -> Iterator[Row]:
    if options.teach:
        _open(options.teach).close()  # before an hour of jobs that nobody could be taught
    with Engine() as engine:
        for model in models_of(options.model):
            course = Course(engine, model)
            jobs = draw_jobs(1 + _jobs(options), options.seed, _kinds(options.largest, model))
            yield from course.rows(jobs, _block(options))
            if options.teach:
                course.teach(options.teach)


def _open(folder: Path) -> StateFolder:
    if not folder.is_dir():
        raise BadInput(f"--teach {folder}: there is no such folder; a worker's is called 'state'")
    try:
        return StateFolder.open(folder)
    except StateTaken as error:
        raise BadInput(f"--teach {folder}: {error}") from error


def _kinds(largest: int, model: Model) -> Kinds:
    if model.main.name != FILE_NAME:  # the only one whose LoRA and ControlNet are here
        return Kinds(largest)
    return Kinds(largest, ensure_lora(MODELS), ensure_control_net(MODELS))


def _block(options: argparse.Namespace) -> int:
    return QUICK_BLOCK if options.quick else BLOCK


def _jobs(options: argparse.Namespace) -> int:
    return options.jobs or (QUICK_BLOCKS * QUICK_BLOCK if options.quick else BLOCKS * BLOCK)


def _count(options: argparse.Namespace) -> int:
    return -(-_jobs(options) // _block(options)) * max(1, len(options.model))


def _side(text: str) -> int:
    pixels = positive(text)
    if not SIDE_STEP <= pixels <= MAX_SIDE:
        raise argparse.ArgumentTypeError(f"{text!r} is not from {SIDE_STEP} to {MAX_SIDE} pixels")
    return pixels


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_models(parser)
    parser.add_argument("--jobs", type=positive, help="that are predicted (300; quick: 80)")
    parser.add_argument("--largest", type=_side, default=256, help="side in pixels (256)")
    parser.add_argument("--seed", type=positive, default=1, help="which jobs are drawn (1)")
    parser.add_argument(
        "--teach", type=Path, metavar="FOLDER", help="the state folder of a worker that learns them"
    )


BENCH = Bench(
    name="seconds",
    help="how near the predicted seconds of jobs are that were never seen",
    add_arguments=_add_arguments,
    rows=_rows,
    count=_count,
)
