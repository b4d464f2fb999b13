"""What each kind of work costs on a machine, from jobs and their seconds. Pure arithmetic.

Seconds are a sum of amounts times costs, and no cost is below 0 (non-negative least squares). It is
the relative error that counts, so a job of 100 ms weighs as much as one of a minute. Three things
keep the fit steady where little is known, or some of it is wrong:

- costs are drawn to typical proportions, as if a few more jobs had shown them (ridge regression);
- later jobs weigh more: a job's weight halves with every `HALF_LIFE` after it;
- jobs far off count less and less (Tukey's biweight): the machine was busy with something else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import scipy  # imports its parts when they are used: half of a worker's imports, in time
from numpy.typing import NDArray

from worker.prediction.amounts import Amounts

HALF_LIFE = 100  # jobs
PRIOR_JOBS = 0.0001  # what typical proportions weigh, for each kind of work
EARLY_PRIOR = 4.0  # and of few jobs, whose noise would be taken for costs: divided by their cube
ROUNDS = 4  # of weighing the jobs anew by how far off they are
TOLERATED = 0.03  # relative; no error is smaller in practice, so none counts as far off
BIWEIGHT = 4.685  # Tukey's constant, in standard deviations
LEAST = 0.001  # of its typical cost: were all kinds of a job free, its seconds would be none

# What an amount of 1 costs, against a call of the network for one picture of 512 x 512. Only
# proportions matter, and those only until jobs have shown better.
TYPICAL = {
    "job": 1.0,
    "images": 0.2,
    "steps": 0.05,
    "calls": 0.2,
    "area": 0.8,
    "attention": 0.2,
    "prompt area": 0.05,
    "control calls": 0.05,
    "control area": 0.3,
    "gaussian noise": 0.01,
    "brownian noise": 0.05,
    "chunks": 0.2,
    "negative chunks": 0.1,
    "tis": 0.1,
    "with LoRAs": 0.4,
    "loras": 0.1,
    "decoded": 3.0,
    "encoded": 2.0,
    "uncovered": 2.0,
}
OTHER = 2.0  # a map or a post-processor of a whole picture

Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds for an amount of 1, by the kind of work. `pace` is what a typical cost of 1 takes."""

    by_kind: Amounts
    pace: float

    def knows(self, work: Amounts) -> bool:
        """Whether some job has shown each kind of work that there is to do."""
        return all(kind in self.by_kind for kind, amount in work.items() if amount)

    def seconds(self, work: Amounts) -> float:
        """Of a job; kinds of work that were never seen have their typical cost."""
        return sum(
            amount * self.by_kind.get(kind, self.pace * TYPICAL.get(kind, OTHER))
            for kind, amount in work.items()
        )


def fit(works: Sequence[Amounts], seconds: Sequence[float]) -> Costs:
    """The costs that fit at least one job, the oldest first."""
    kinds = sorted({kind for work in works for kind in work})
    typical = np.array([TYPICAL.get(kind, OTHER) for kind in kinds])
    took, jobs = np.array(seconds), len(works)
    shares = np.array([[work.get(kind, 0.0) for kind in kinds] for work in works]) * typical
    shares /= took[:, None]  # so that each job's parts should sum to 1
    pace = 1 / median(shares.sum(axis=1).tolist())
    # The costs are `factors` times the typical ones; without any job, each factor would be `pace`.
    pull = (PRIOR_JOBS + EARLY_PRIOR / jobs**3) ** 0.5
    system = np.vstack([shares, pull / pace * np.eye(len(kinds))])
    wanted = np.concatenate([np.ones(jobs), np.full(len(kinds), pull)])
    recency = 0.5 ** (np.arange(jobs)[::-1] / HALF_LIFE)
    factors, trust = np.full(len(kinds), pace), recency
    for _ in range(ROUNDS):
        weights = np.concatenate([np.sqrt(trust), np.ones(len(kinds))])
        factors = scipy.optimize.nnls(system * weights[:, None], wanted * weights)[0]
        trust = recency * _biweight(shares @ factors - 1)
    factors = np.maximum(factors, LEAST * pace)
    return Costs(dict(zip(kinds, (factors * typical).tolist(), strict=True)), pace)


def _biweight(errors: Numbers) -> Numbers:
    """1 for a job that is met, 0 for one that is far off."""
    spread = max(TOLERATED, 1.4826 * median(np.abs(errors).tolist()))
    return np.maximum(0.0, 1 - (errors / (BIWEIGHT * spread)) ** 2) ** 2
