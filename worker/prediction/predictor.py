"""How long a job will take on this machine, learnt from the jobs that it has done.

Each family of models has a fit of its own (worker.prediction.fit) over its latest jobs, so that
what is predicted follows the machine; the very latest ones tell how busy it is now. Until a
family's first job, nothing is known, and that is said.
"""

from __future__ import annotations

import math
import statistics
import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from hordelib.job.families import Family
from hordelib.job.params import GenerationParams
from worker.prediction.amounts import Amounts, amounts_of
from worker.prediction.fit import Costs, fit
from worker.prediction.seconds_file import Learnt, SecondsFile, TimedJob

JOBS = 200  # that are remembered of a family
ERRORS = 50  # of predictions
LATE_JOBS = 20  # among which the fastest sets the least time
KEPT_EVERY = 10  # jobs: what is learnt goes to the disk
SURE = (0.05, 0.95)  # the share of jobs below `low`, and below `high`
FITS = 20  # over the jobs that are remembered: costs are fitted anew with each 20th part of them
DRIFT_JOBS = 5  # the latest ones, whose median tells how busy the machine is now
LASTING = 0.5  # of how much longer they took, which the next job takes longer, too
DOUBTS = (-math.log(2), math.log(2)) * 2  # as if some jobs had taken half and double the time


@dataclass(frozen=True, slots=True)
class Prediction:
    """Of a job that is like those before, nine in ten take between `low` and `high` seconds.

    `jobs` it is learnt from: of 0, nothing is known.
    """

    seconds: float
    low: float
    high: float
    jobs: int

    @property
    def is_known(self) -> bool:
        return self.jobs > 0


UNKNOWN = Prediction(0.0, 0.0, math.inf, 0)


class SecondsPredictor:
    """Any thread may call. `file`: what was learnt before; None remembers in this process alone.

    A prediction takes some 10 µs, the first one after a job sometimes milliseconds.
    """

    def __init__(self, file: SecondsFile | None = None):
        self._file = file
        self._lock = threading.Lock()
        self._families = {name: _Learner.of(learnt) for name, learnt in _read(file).items()}
        self._news = 0  # jobs since the last time that it was kept

    def predict(self, params: GenerationParams, family: Family) -> Prediction:
        """The seconds on the device of all the job's images, without its model's loading."""
        return self.predict_work(amounts_of(params, family), family.name)

    def predict_work(self, work: Amounts, family: str) -> Prediction:
        """As `predict`, of a job's amounts of work (worker.prediction.amounts)."""
        with self._lock:
            learner = self._families.get(family)
            return learner.predict(work) if learner else UNKNOWN

    def least_seconds(self, params: GenerationParams, family: Family) -> float:
        """What the job takes at least, so that one that can't make it ends early; 0: not known."""
        work = amounts_of(params, family)
        with self._lock:
            learner = self._families.get(family.name)
            return learner.least_seconds(work) if learner else 0.0

    def takes_longer(self, seconds: float, params: GenerationParams, family: Family) -> bool:
        """Whether the job surely takes longer; quickly told where none has of late."""
        with self._lock:
            learner = self._families.get(family.name)
            if learner is None or not learner.has_taken(seconds):
                return False
        return self.least_seconds(params, family) > seconds

    def learn(self, params: GenerationParams, family: Family, seconds: float) -> None:
        """A job took so long, its model's loading aside."""
        if not 0 < seconds < math.inf:
            return
        job = TimedJob(amounts_of(params, family), seconds)
        with self._lock:
            self._families.setdefault(family.name, _Learner()).learn(job)
            self._news += 1
            if self._news >= KEPT_EVERY:
                self._keep()

    def keep(self) -> None:
        """Write what was learnt to the file, as it is done now and then, too."""
        with self._lock:
            self._keep()

    def _keep(self) -> None:
        self._news = 0
        if self._file is not None:
            self._file.write({name: each.learnt for name, each in self._families.items()})


def _read(file: SecondsFile | None) -> Mapping[str, Learnt]:
    return file.read() if file is not None else {}


@dataclass(slots=True)
class _Learner:
    """One family's jobs, the oldest first, and what follows from them."""

    jobs: deque[TimedJob] = field(default_factory=lambda: deque[TimedJob](maxlen=JOBS))
    errors: deque[float] = field(default_factory=lambda: deque[float](maxlen=ERRORS))
    costs: Costs | None = None
    unfitted: int = 0  # jobs since the costs were fitted
    fitted: _Fitted | None = None  # None: not since the last job

    @classmethod
    def of(cls, learnt: Learnt) -> _Learner:
        return cls(deque(learnt.jobs, JOBS), deque(learnt.errors, ERRORS))

    @property
    def learnt(self) -> Learnt:
        return Learnt(tuple(self.jobs), tuple(self.errors))

    def learn(self, job: TimedJob) -> None:
        """With the logarithm of how far off the prediction of this job was, before it is learnt."""
        if self.jobs:
            self.errors.append(math.log(job.seconds / self._fit().seconds(job.work)))
        self.jobs.append(job)
        self.unfitted += 1
        self.fitted = None

    def predict(self, work: Amounts) -> Prediction:
        fitted = self._fit()
        seconds = fitted.seconds(work)
        low, high = fitted.spread if fitted.costs.knows(work) else _NEVER_SEEN
        return Prediction(seconds, seconds * low, seconds * high, len(self.jobs))

    def least_seconds(self, work: Amounts) -> float:
        """By each of the late jobs, as far as all that it did is to be done in this one, too.

        No cost is below 0. So a job that has at least half of every amount of another one takes at
        least half its time, whatever the costs are. Each is reckoned at the best pace of them all,
        which never makes it longer than it was: the others may have met a busy machine.
        """
        costs = self._fit().costs
        late = [(job, costs.seconds(job.work)) for job in self._late]
        best = min((job.seconds / seconds for job, seconds in late), default=0.0)
        return max(
            (best * seconds * _least_share(work, job.work) for job, seconds in late), default=0.0
        )

    def has_taken(self, seconds: float) -> bool:
        """Whether a late job was longer, without which none takes so long for sure."""
        return any(job.seconds > seconds for job in self._late)

    @property
    def _late(self) -> Sequence[TimedJob]:
        return [*self.jobs][-LATE_JOBS:]

    def _fit(self) -> _Fitted:
        if self.fitted is None:
            self.fitted = _Fitted.of(self._costs(), self._late[-DRIFT_JOBS:], self.errors)
        return self.fitted

    def _costs(self) -> Costs:
        """A fit over all jobs takes milliseconds; few new ones among many change little."""
        is_due = self.unfitted * FITS >= len(self.jobs)
        if self.costs is None or is_due or not self.costs.knows(self.jobs[-1].work):
            self.costs = fit([job.work for job in self.jobs], [job.seconds for job in self.jobs])
            self.unfitted = 0
        return self.costs


@dataclass(frozen=True, slots=True)
class _Fitted:
    """What follows from the jobs. `drift`: the next one takes so many times what its costs say."""

    costs: Costs
    drift: float
    spread: tuple[float, float]  # factors of `low` and `high`

    @classmethod
    def of(cls, costs: Costs, late: Iterable[TimedJob], errors: Iterable[float]) -> _Fitted:
        paces = [job.seconds / costs.seconds(job.work) for job in late]
        return cls(costs, statistics.median(paces) ** LASTING, _spread(errors))

    def seconds(self, work: Amounts) -> float:
        return self.costs.seconds(work) * self.drift


_NEVER_SEEN = (0.5, 2.0)


def _least_share(work: Amounts, done: Amounts) -> float:
    """How much of all that was `done` is in `work`, at least; never more than 1."""
    shares = (work.get(kind, 0.0) / amount for kind, amount in done.items() if amount)
    return min(1.0, *shares)


def _spread(errors: Iterable[float]) -> tuple[float, float]:
    """With some doubt, which a number of jobs outweighs."""
    known = np.sort([*errors, *DOUBTS])
    low, high = np.exp(np.interp(SURE, np.linspace(0, 1, len(known)), known))  # quantiles
    return float(min(low, 1.0)), float(max(high, 1.0))
