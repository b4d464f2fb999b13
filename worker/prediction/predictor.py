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
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from hordelib.job.families import Family
from hordelib.job.params import GenerationParams
from worker.prediction.amounts import Amounts, amounts_of
from worker.prediction.fit import Costs, fit
from worker.prediction.seconds_file import Learnt, SecondsFile, TimedJob

WORTH_SHARING = 0.97  # of the seconds one by one; nearer to them, nobody gains
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
        learnt = file.read() if file else dict[str, Learnt]()
        self._families = {name: _Learner(each) for name, each in learnt.items() if each.jobs}
        self._news = 0  # jobs since the last time that it was kept

    def predict(self, params: GenerationParams, family: Family) -> Prediction:
        """The seconds on the device of all the job's images, without its model's loading."""
        with self._lock:
            learner = self._families.get(family.name)
            return learner.predict(amounts_of(params, family)) if learner else UNKNOWN

    def is_sooner_together(
        self, together: GenerationParams, alone: Iterable[GenerationParams], family: Family
    ) -> bool:
        """Whether jobs take less in one batch than one by one, by what this machine has shown.

        Where a card does not, the first of them would only wait for the pictures of the others.
        """
        seconds = sum(self.predict(params, family).seconds for params in alone)
        return self.predict(together, family).seconds <= WORTH_SHARING * seconds

    def least_seconds(self, params: GenerationParams, family: Family) -> float:
        """What the job takes at least, so that one that can't make it ends early; 0: not known."""
        with self._lock:
            learner = self._families.get(family.name)
            return learner.least_seconds(amounts_of(params, family)) if learner else 0.0

    def takes_longer(self, seconds: float, params: GenerationParams, family: Family) -> bool:
        """Whether the job surely takes longer."""
        return self.least_seconds(params, family) > seconds

    def learn(self, params: GenerationParams, family: Family, seconds: float) -> None:
        """A job took so long, its model's loading aside."""
        if not 0 < seconds < math.inf:
            return
        job = TimedJob(amounts_of(params, family), seconds)
        with self._lock:
            if learner := self._families.get(family.name):
                learner.learn(job)
            else:
                self._families[family.name] = _Learner(Learnt((job,)))
            self._news += 1
            is_due = self._news >= KEPT_EVERY
        if is_due:
            self.keep()

    def keep(self) -> None:
        """Write what was learnt to the file, as it is done now and then, too."""
        with self._lock:
            self._news = 0
            if self._file is not None:
                self._file.write({name: each.learnt for name, each in self._families.items()})


class _Learner:
    """One family's jobs, the oldest first, and what follows from them."""

    def __init__(self, learnt: Learnt):
        self._jobs = deque(learnt.jobs, JOBS)
        self._errors = deque(learnt.errors, ERRORS)
        self._costs = Costs({}, 1.0)
        self._drift = 1.0  # how many times what its costs say the next job takes
        self._spread = _NEVER_SEEN
        self._unfitted = len(self._jobs)  # since the costs were fitted
        self._is_stale = True

    @property
    def learnt(self) -> Learnt:
        return Learnt(tuple(self._jobs), tuple(self._errors))

    def learn(self, job: TimedJob) -> None:
        """With the logarithm of how far off the prediction of this job was, before it is learnt."""
        self._errors.append(math.log(job.seconds / self.predict(job.work).seconds))
        self._jobs.append(job)
        self._unfitted += 1
        self._is_stale = True

    def _fit(self) -> None:
        """A fit over all jobs takes milliseconds; few new ones among many change little."""
        if not self._is_stale:
            return
        self._is_stale = False
        is_due = self._unfitted * FITS >= len(self._jobs)
        if is_due or not self._costs.knows(self._jobs[-1].work):
            self._costs = fit([job.work for job in self._jobs], [job.seconds for job in self._jobs])
            self._unfitted = 0
        paces = [job.seconds / self._costs.seconds(job.work) for job in self._late(DRIFT_JOBS)]
        self._drift = statistics.median(paces) ** LASTING
        self._spread = _spread(self._errors)

    def predict(self, work: Amounts) -> Prediction:
        self._fit()
        seconds = self._costs.seconds(work) * self._drift
        low, high = self._spread if self._costs.knows(work) else _NEVER_SEEN
        return Prediction(seconds, seconds * low, seconds * high, len(self._jobs))

    def least_seconds(self, work: Amounts) -> float:
        """By each of the late jobs, as far as all that it did is to be done in this one, too.

        No cost is below 0. So a job that has at least half of every amount of another one takes at
        least half its time, whatever the costs are. Each is reckoned at the best pace of them all,
        which never makes it longer than it was: the others may have met a busy machine.
        """
        self._fit()
        late = [(job, self._costs.seconds(job.work)) for job in self._late(LATE_JOBS)]
        best = min(job.seconds / seconds for job, seconds in late)
        return best * max(seconds * _least_share(work, job.work) for job, seconds in late)

    def _late(self, count: int) -> Sequence[TimedJob]:
        return [*self._jobs][-count:]


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
