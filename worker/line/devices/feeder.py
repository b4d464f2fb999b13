"""The thread of one device: which jobs it makes, from the start of its engine to the last one.

What happens to a device stays with it. One that can't be used, or is to be left alone, makes
nothing; what it had begun goes back to the jobs that wait, for another device. Where it is the last
one, it is the worker that can't go on.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from math import inf

from hordelib.engine import Generation
from hordelib.errors import EngineError, JobError
from hordelib.files.model import Model
from hordelib.job.batching import Member
from worker.backoff import Backoff
from worker.clock import elapsed_seconds
from worker.errors import EngineUnusable, WorkerError
from worker.jobs.journal import Journal
from worker.jobs.results import (
    PAUSED,
    UNDELIVERED,
    JobStage,
    Results,
    failed,
    fault_reason,
)
from worker.jobs.timeline import Phase
from worker.jobs.work import Work
from worker.line.devices.blame import Evidence
from worker.line.devices.device import Device, Residency
from worker.line.devices.runner import Runner
from worker.line.devices.schedule import chooser
from worker.line.devices.waiting_jobs import Waiting, WaitingJobs
from worker.line.gaps import Gaps
from worker.line.halt import Halt
from worker.line.job_ends import Stopping
from worker.line.limits import Limits
from worker.line.pausing import PauseKind
from worker.models.offered import OfferedModels

log = logging.getLogger(__name__)

IDLE_SECONDS = 1.0  # without jobs, between two looks whether the device is to be freed
UNRUN = (JobStage.waiting, JobStage.running)
OUT_SECONDS = (300.0, 3600.0)  # until a device that failed is tried again: the first, the longest

Outcome = Generation | Results | None


@dataclass(frozen=True, slots=True)
class Shared:
    """What all devices of a worker have in common.

    Args:
        hand_over: gets what came of a job; None: nothing, and it is to be given back.
        fail: is told what the worker can't go on with.
        introduced: no engine is started before the horde knows the worker.
        ready: set once there is a device that can be used.
    """

    waiting: WaitingJobs
    gaps: Gaps
    journal: Journal
    offered: OfferedModels
    limits: Limits
    halt: Halt
    evidence: Evidence
    hand_over: Callable[[Work, Outcome], None]
    fail: Callable[[WorkerError], None]
    introduced: threading.Event
    ready: threading.Event


class Feeder:
    """Feeds one device; any thread may call what is not marked otherwise."""

    def __init__(self, device: Device, shared: Shared):
        self._shared = shared
        self._journal = shared.journal
        self._halt = shared.halt
        self._share = device.share
        self._others: tuple[Feeder, ...] = ()
        self._away = threading.Event()  # it makes nothing now, and what it had is given back
        self._residency = Residency()
        self._predictor = device.predictor or shared.journal.predictor
        self._runner = Runner(
            device,
            shared.offered,
            shared.journal,
            evidence=shared.evidence,
            hurry=self._away,
            starts=shared.limits.engine_starts,
        )
        self.device = device
        self.name = device.name
        self.at_work: Sequence[Work] = ()
        self.out_why = ""  # of a device that is out
        self._rest = PauseKind.none  # a pause of this device alone
        self.is_starting = True
        self._is_free = False
        self._free_at = inf
        self._passing_since = inf
        self._out_until: float | None = None  # None: it can be used
        self._out_backoff = Backoff(*OUT_SECONDS)

    def meet(self, feeders: Sequence[Feeder]) -> None:
        """All of the worker, before any of them works."""
        self._others = tuple(each for each in feeders if each is not self)

    # ---- its place in the schedule -------------------------------------------------------------

    @property
    def kind(self) -> Hashable:
        return id(self._predictor)

    @property
    def is_free(self) -> bool:
        return self._is_free

    @property
    def seconds_left(self) -> float | None:
        if self._is_free:
            return 0.0
        left = self._runner.seconds_left
        if left is not None or self._free_at == inf:
            return left
        return max(0.0, self._free_at - elapsed_seconds())

    def serves(self, work: Work) -> bool:
        return self._share is None or self._share.takes(work.model, work.params)

    def has(self, model: str) -> bool:
        """Whether its jobs are for this device."""
        return self._share is None or self._share.has(model)

    def seconds_to_have(self, model: str) -> float:
        return self._residency.seconds_to_have(model)

    def seconds(self, work: Work) -> float | None:
        prediction = self._predictor.predict(work.params, work.model.family)
        return prediction.seconds if prediction.is_known else None

    # ---- its state ---------------------------------------------------------------------------

    @property
    def is_out(self) -> bool:
        """Whether it can't be used."""
        return self._out_until is not None

    @property
    def is_available(self) -> bool:
        """Whether it takes jobs."""
        return not self.is_out and not self._rest

    @property
    def is_running(self) -> bool:
        return self._runner.is_running

    @property
    def silent_seconds(self) -> float:
        """Since the engine's last word."""
        return self._runner.silent_seconds

    def prepare(self, work: Work) -> None:
        self._runner.prepare(work)

    # ---- what it is told ---------------------------------------------------------------------

    def stop_by(self, moment: float) -> None:
        self._runner.stop_by(moment)

    def leave_device(self) -> bool:
        """At once; the job at work is given back by the thread that loses its engine.

        Whether it was not left before.
        """
        is_new = not self._away.is_set()
        if is_new:
            self._away.set()
            self._runner.kill()
        return is_new

    def hurry_up(self) -> None:
        """No death of an engine is held against a job any more."""
        self._away.set()

    def end_start(self) -> None:
        """Where its engine is starting, that was for nothing."""
        if self.is_starting:
            self._away.set()
            self._runner.kill()

    def kill(self) -> None:
        self._runner.kill()

    def rest(self, kind: PauseKind) -> None:
        """A pause of this device alone; PauseKind.none ends it."""
        if kind is self._rest:
            return
        log.info("%s %s", self.name, "is left alone" if kind else "is used again")
        self._rest = kind
        if kind is PauseKind.at_once:
            self.leave_device()
        self._shared.waiting.wake()

    # ---- its own thread ------------------------------------------------------------------------

    def work(self) -> None:
        """Ends after the last job."""
        self._shared.introduced.wait()
        if self._shared.limits.engine and not self._halt.frees_devices and not self._frees_itself:
            self._start()
        self.is_starting = False
        if not self.is_out:
            self._shared.ready.set()
        while batch := self._next_batch():
            self.at_work = batch
            with self._journal.timeline.during(Phase.HANDING_OVER):
                for work, outcome in zip(batch, self._run(batch), strict=True):
                    self._hand_over(work, outcome)
            self.at_work = ()

    def end(self) -> None:
        """After that: the device is free."""
        self._runner.stop()

    @property
    def _frees_itself(self) -> bool:
        return self._rest >= PauseKind.finish

    def _start(self) -> None:
        try:
            self._runner.start(unless=self._away)
        except EngineUnusable as error:
            if not self._fall_out(error):
                raise

    def _fall_out(self, error: EngineUnusable) -> bool:
        """It can't be used; whether the worker goes on without it."""
        with self._halt.changing:
            if not self._shared.offered.models or all(each.is_out for each in self._others):
                return False
            delay = self._out_backoff.delay()
            self._out_until = elapsed_seconds() + delay
        self.out_why = str(error)
        told = "%s: %s; the others go on, and it is tried again in %.0f min"
        log.error(told, self.name, error, delay / 60)
        self._runner.stop()
        self._shared.waiting.wake()
        self._journal.wake()
        return True

    def _come_back(self) -> None:
        """Once its time is over, where it can be used again."""
        if self._out_until is None or elapsed_seconds() < self._out_until:
            return
        self._return_to_device()
        self.is_starting = True
        self._start()
        self.is_starting = False
        if self._runner.is_running:
            log.info("%s can be used again", self.name)
            self._out_until = None
            self._shared.ready.set()
            self._journal.wake()

    def _next_batch(self) -> list[Work]:
        """The next job, with those that share its batch, once there is room behind the engine.

        Nothing after the last one. A paused device without jobs has no engine.
        """
        shared = self._shared
        with self._journal.timeline.during(Phase.DELIVERING):
            self._journal.wait_for(
                lambda: self._halt.hurry.is_set() or not self._is_much_undelivered()
            )
        if self.is_available:
            shared.gaps.take_due(self._run_between)
        self._is_free = self.is_available
        try:
            while True:
                try:
                    can_fill = self.is_available and not shared.gaps.is_empty
                    batch = shared.waiting.take(self._choose, 0.0 if can_fill else IDLE_SECONDS)
                except queue.Empty:
                    self._when_idle()
                else:
                    self._return_to_device()
                    return batch
        finally:
            self._is_free = False

    def _choose(self, waiting: Sequence[Waiting]) -> Sequence[Work]:
        """While it holds the waiting jobs, so that no other device chooses at the same time."""
        self._is_free = self.is_available
        if not self._is_free:
            return ()
        if not self._runner.is_running:
            self._residency.lost()
        others = [each for each in self._others if each.is_available]
        since = self._passing_since
        batch = chooser(self, others, self._runner.may_share, since)(waiting)
        self._passing_since = inf if batch else min(since, elapsed_seconds())
        if batch:
            self._is_free = False
            seconds = self.seconds(batch[0])
            having = self.seconds_to_have(batch[0].model.name)
            self._free_at = inf if seconds is None else elapsed_seconds() + having + seconds
        return batch

    def _when_idle(self) -> None:
        self._come_back()
        if self.is_available and self._shared.gaps.take_turn(self._run_between):
            return
        is_left = self._halt.frees_devices and not self._journal.in_hand
        if (is_left or self._frees_itself) and self._runner.is_running:
            self._runner.stop()

    def _is_much_undelivered(self) -> bool:
        """Nothing more is made then."""
        undelivered = sum(row.stage in UNDELIVERED for row in self._journal.jobs())
        return undelivered >= self._shared.limits.most_unfinished

    def _return_to_device(self) -> None:
        """No death of an engine before is held against a job."""
        with self._halt.changing:
            is_left = self._halt.is_at_once or self._rest is PauseKind.at_once
            if not is_left and not self._halt.hurry.is_set():
                self._away.clear()

    def _hand_over(self, work: Work, outcome: Outcome) -> None:
        """What it has not made waits again, unless the worker is to make nothing any more."""
        is_over = self._halt.is_at_once or self._halt.hurry.is_set()
        if outcome is not None or is_over or (self._halt.stopping.is_set() and not self.is_out):
            self._shared.hand_over(work, outcome)
        elif self._journal.move(work.job.id, JobStage.waiting, of=UNRUN):
            log.info("job %s waits again, for any device", work.job.id)
            self._shared.waiting.add(work)

    def _run(self, batch: list[Work]) -> Iterable[Outcome]:
        """Jobs that share a batch; each alone, where there is one or where that did not work."""
        generations = self._run_together(batch) if len(batch) > 1 else ()
        return generations or map(self._run_alone, batch)

    def _run_together(self, batch: list[Work]) -> tuple[Generation, ...]:
        """Nothing where it did not work, for whatever reason: no job fails for another's sake."""
        try:
            generations = self._runner.run_together(batch)
        except Exception as error:  # noqa: BLE001 - the boundary of all of these jobs
            if not self._away.is_set():
                why = fault_reason(error)
                log.warning("%d jobs in one batch: %s; one by one now", len(batch), why)
            return ()
        self._residency.made(batch[0].model.name, generations[0])
        return generations

    def _run_alone(self, work: Work) -> Outcome:
        """Nothing of a job that there is no time for any more, or no device."""
        if self.is_out:
            return None
        try:
            generation = self._runner.run(work)
        except Stopping:
            return None
        except WorkerError as error:  # it stops the worker, which owes this job an end
            if isinstance(error, EngineUnusable) and self._fall_out(error):
                return None
            self._shared.fail(error)
            return failed(work.job, str(error))
        except Exception as error:  # noqa: BLE001 - the job boundary
            return failed(work.job, fault_reason(error))
        self._residency.made(work.model.name, generation)
        return generation

    def _run_between(
        self, members: Sequence[Member], model: Model, until: float
    ) -> Sequence[Generation]:
        """What waits for a gap; in a pause that frees the device, it neither starts the engine nor
        has it start again."""
        if self._halt.frees_devices and not self._runner.is_running:
            raise JobError(PAUSED)
        self._return_to_device()
        try:
            return self._runner.run_between(members, model, until)
        except EngineError as error:
            if self._halt.is_at_once or not self.is_available:
                raise JobError(PAUSED) from error
            raise
        except EngineUnusable as error:
            if self._fall_out(error):
                raise JobError(str(error)) from error
            self._shared.fail(error)
            raise
