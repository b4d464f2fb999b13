"""What jobs that end badly are held against: a model or a client's file that is not used any more.

What a client sends never costs a model its place. Jobs that fail only accuse it; whether it is at
fault, a job of the worker's own decides, in which there is nothing of a client's.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from pathlib import Path

from hordelib.errors import (
    Cancelled,
    DeviceFault,
    EngineError,
    JobError,
    ModelBroken,
    OutOfMemory,
)
from hordelib.job.params import SIDE_STEP, GenerationParams
from worker.children.engine import EngineProcess
from worker.errors import EngineUnusable, NothingToServe
from worker.jobs.work import Work
from worker.line.devices.crash_counts import CrashCounts
from worker.line.devices.failed_requests import FailedRequests
from worker.line.job_ends import KillsEngines, Stopping
from worker.loras.adapters import files_of
from worker.models.offered import OfferedModels

log = logging.getLogger(__name__)

# The worker's own job, which every model can do.
TRIAL = GenerationParams(prompt="a red circle on a blue background", seed=0, steps=2)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What all devices of a worker know of jobs that ended badly.

    Args:
        ban: leaves a LoRA's file out of all jobs from now on.
    """

    ban: Callable[[Path], None]
    counts: CrashCounts = field(default_factory=CrashCounts)
    failed: FailedRequests = field(default_factory=FailedRequests)


class Blame:
    """For the engine's thread.

    Args:
        start: has a running engine.
        is_over: whether the worker has no time left for a trial.
    """

    def __init__(
        self,
        engine: EngineProcess,
        offered: OfferedModels,
        *,
        evidence: Evidence,
        start: Callable[[], None],
        is_over: Callable[[], bool],
        hurry: threading.Event,
    ):
        self._engine = engine
        self._offered = offered
        self._ban = evidence.ban
        self._start = start
        self._is_over = is_over
        self._hurry = hurry
        self._crash_counts = evidence.counts

    def did_well(self, work: Work) -> None:
        self._crash_counts.did_well(work.job.model, files_of(work.params))

    def failed(self, work: Work) -> None:
        """The job failed in the engine, without its client's LoRAs and textual inversions, too.

        Where it was one too many, the model is tried in a quarter of its family's size. Raises
        NothingToServe as `withdraw` does.
        """
        if not self._crash_counts.failed(work.job.model, _look(work)):
            return
        side = work.model.family.native_side // 4 // SIDE_STEP * SIDE_STEP
        try:
            error = self._tried(work, side, side)
        except Stopping:
            return
        if error is None or isinstance(error, OutOfMemory | DeviceFault):  # the machine's
            log.info("%s: it is not the model that jobs fail of", work.job.model)
        else:
            reason = f"{error}; the worker's own job fails, too: fetch it again, or another one"
            self.withdraw(work.job.model, reason)

    def died(self, work: Work, error: EngineError) -> None:
        """The engine died of the job. Raises JobError where what was at work is out now.

        A model that is accused is tried in the job's size. Raises Stopping where the worker stops
        meanwhile, and EngineUnusable when the last model kills engines.
        """
        blamed = self._crash_counts.died(work.job.model, files_of(work.params), _look(work))
        for file in blamed.files:
            log.error("%s is not used any more: the engine died of it again and again", file)
            self._ban(file)
        if blamed.model and self._is_deadly(work):
            reason = "the engine died of it again and again"
            if not self._offered.withdraw(blamed.model, reason):
                raise EngineUnusable(f"no model is left to serve: {reason}")
            raise JobError(str(error)) from error
        if blamed.files:
            raise KillsEngines(str(error)) from error

    def insist_on_same_files(self, model: str) -> None:
        """Raises ModelBroken: of other files than those that were verified nothing is made."""
        if trouble := self._offered.changed(model):
            self.withdraw(model, trouble)
            raise ModelBroken(trouble)

    def withdraw(self, model: str, reason: str) -> None:
        """Offer a model no more of which every job would fail, until its files change.

        Raises NothingToServe after the last one, unless its files have changed and are watched:
        they may be whole again.
        """
        change = self._offered.changed(model)
        is_any_left = self._offered.withdraw(model, change or reason)
        if not is_any_left and not (change and self._offered.is_watched):
            raise NothingToServe(f"no model is left to serve: {change or reason}")

    def _is_deadly(self, work: Work) -> bool:
        error = self._tried(work, work.params.width, work.params.height)
        is_deadly = isinstance(error, EngineError) and not isinstance(error, DeviceFault)
        if not is_deadly:
            log.info("%s: it is not the model that the engine dies of", work.job.model)
        return is_deadly

    def _tried(self, work: Work, width: int, height: int) -> JobError | EngineError | None:
        """What the worker's own job fails of with the model. Whatever comes of it, nothing that
        was before speaks against the model any more."""

        def on_step(_done: int, _total: int) -> None:
            if self._is_over():
                self._engine.cancel()

        if self._is_over():
            raise Stopping
        self._start()
        self._crash_counts.acquit(work.job.model)
        try:
            self._engine.generate(replace(TRIAL, width=width, height=height), work.model, on_step)
        except Cancelled as error:
            raise Stopping from error
        except JobError as error:
            return error
        except EngineError as error:
            if self._hurry.is_set():
                raise Stopping from error
            return error
        return None


def _look(work: Work) -> Hashable:
    """The same for a job that comes again, as the horde hands out what was faulted."""
    params = work.params
    return params.prompt, params.negative_prompt, params.seed, params.width, params.height
