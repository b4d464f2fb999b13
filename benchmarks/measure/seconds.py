"""How near the predicted seconds of jobs are: each job is predicted before it is run and learnt.

So every job is one that the predictor has not seen. How far apart two runs of the same work are on
this machine is measured beside it: no prediction can be nearer than that. With several rounds, a
job's seconds are the median of its runs, between which all others were run, so that less is left of
what else the machine does.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from math import ceil
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.measure.drawn_jobs import Kinds, draw_jobs
from benchmarks.measure.model_files import MODELS, add_models, models_of
from benchmarks.results.document import BadInput
from benchmarks.results.frame import MEASURED, Bench, Measured, positive
from hordelib import Engine
from hordelib.demo_model import FILE_NAME, ensure_control_net, ensure_lora
from hordelib.files.model import Model
from hordelib.job.families import Family
from hordelib.job.params import MAX_SIDE, SIDE_STEP, GenerationParams
from worker.errors import StateTaken
from worker.prediction.predictor import SecondsPredictor
from worker.service.assembly import make_predictor
from worker.service.state_folder import StateFolder

ROUND = 1_000_000  # by which the numbers in prompts and the seeds differ from round to round
BLOCK, QUICK_BLOCK = 50, 20  # jobs of a row
BLOCKS, QUICK_BLOCKS = 6, 4
REPEATED_EVERY = 5  # jobs: one is run again


@dataclass(frozen=True, slots=True)
class Row:
    """Some jobs in a row. Percent: how far off, of the seconds that the job took."""

    model: str
    rounds: int  # whose median is a job's seconds
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
    rounds: int = 1
    predictor: SecondsPredictor = field(default_factory=SecondsPredictor)
    done: list[Timed] = field(default_factory=list[Timed])

    def rows(self, jobs: Sequence[GenerationParams], block: int) -> Iterator[Row | Measured]:
        """One for each `block` jobs. Of the very first job nothing is predicted."""
        runs: list[list[float]] = [[] for _ in jobs]
        for round_number in range(1, self.rounds):
            for job, seconds in zip(jobs, runs, strict=True):
                seconds.append(self._run(job, round_number))
                yield MEASURED
        self._take(jobs[0], runs[0])
        for start in range(1, len(jobs), block):
            again = list[float]()
            for number in range(start, min(start + block, len(jobs))):
                self._take(jobs[number], runs[number])
                yield MEASURED
                if (number - start) % REPEATED_EVERY == 0:
                    once_more = self._run(jobs[number], self.rounds)
                    again.append(once_more / self.done[-1].seconds - 1)
            yield self._row(start, again)

    def teach(self, folder: Path) -> None:
        """The worker of this state folder predicts as if it had served these jobs."""
        with closing(_open(folder)) as state:
            predictor = make_predictor(state.path)
            for each in self.done:
                predictor.learn(each.job, each.family, each.seconds)
            predictor.keep()

    def _take(self, job: GenerationParams, runs: list[float]) -> None:
        """The last run of a job, and what is learnt of all of them."""
        family = self.model.family
        expected = self.predictor.predict(job, family)
        seconds = median([*runs, self._run(job, 0)])
        self.predictor.learn(job, family, seconds)
        if expected.is_known:
            within = expected.low <= seconds <= expected.high
            self.done.append(Timed(job, family, seconds, expected.seconds / seconds - 1, within))

    def _run(self, job: GenerationParams, round_number: int) -> float:
        """The same work in each round, of which ComfyUI has nothing left from the others."""
        own = replace(
            job,
            prompt=_numbered(job.prompt, round_number),
            negative_prompt=_numbered(job.negative_prompt, round_number),
            seed=job.seed + ROUND * round_number,
        )
        return self.engine.generate(own, self.model).run_seconds

    def _row(self, start: int, again: list[float]) -> Row:
        done = self.done[start - 1 :]
        median_percent, p90_percent = _percent([each.off for each in done])
        again_median, again_p90 = _percent(again)
        return Row(
            model=self.model.name,
            rounds=self.rounds,
            learnt=start,
            jobs=len(done),
            median_percent=median_percent,
            p90_percent=p90_percent,
            within_percent=100 * sum(each.within for each in done) / len(done),
            again_median_percent=again_median,
            again_p90_percent=again_p90,
            median_seconds=median(each.seconds for each in done),
        )


def _numbered(prompt: str, round_number: int) -> str:
    """Its first number, which drawn jobs have of their own, is that of the round, too."""
    return re.sub(r"\d+", lambda found: str(int(found[0]) + ROUND * round_number), prompt, count=1)


def _percent(off: list[float]) -> tuple[float, float]:
    """Median and 90th percentile of how large they are."""
    median, p90 = np.quantile(np.abs(off), (0.5, 0.9))
    return 100 * float(median), 100 * float(p90)


def _rows(options: argparse.Namespace) -> Iterator[Row | Measured]:
    if options.teach:
        _open(options.teach).close()  # before an hour of jobs that nobody could be taught
    with Engine() as engine:
        for model in models_of(options.model):
            course = Course(engine, model, options.rounds)
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
    """The runs that count for each model, and its rows."""
    jobs = _jobs(options)
    runs = (options.rounds - 1) * (1 + jobs) + jobs
    return (runs + ceil(jobs / _block(options))) * max(1, len(options.model))


def _side(text: str) -> int:
    pixels = positive(text)
    if not SIDE_STEP <= pixels <= MAX_SIDE:
        raise argparse.ArgumentTypeError(f"{text!r} is not from {SIDE_STEP} to {MAX_SIDE} pixels")
    return pixels


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_models(parser)
    parser.add_argument("--jobs", type=positive, help="that are predicted (300; quick: 80)")
    parser.add_argument("--rounds", type=positive, default=1, help="of all jobs (1)")
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
