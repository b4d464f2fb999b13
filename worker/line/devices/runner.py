"""The step "run": one engine, kept alive, makes the pictures of one job after the other."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import inf

from hordelib.engine import Generation
from hordelib.errors import (
    AuxiliaryBroken,
    Cancelled,
    DeviceFault,
    DeviceUnusable,
    EngineError,
    GenerationFailed,
    JobError,
    ModelBroken,
    ModelMissing,
)
from hordelib.files.model import Model
from hordelib.job.batching import Member, common_params
from hordelib.job.params import auxiliaries_of
from worker.backoff import Backoff
from worker.clock import elapsed_seconds
from worker.errors import EngineUnusable
from worker.horde.kudos import estimated_kudos
from worker.jobs.journal import Journal
from worker.jobs.results import JobStage
from worker.jobs.timeline import Phase
from worker.jobs.work import Work
from worker.line.devices.blame import Blame, Evidence
from worker.line.devices.device import Device
from worker.line.devices.waiting_jobs import members_of
from worker.line.job_ends import KillsEngines, Stopping, TooLate
from worker.loras.adapters import without_files
from worker.models.offered import OfferedModels
from worker.prediction.predictor import Prediction
from worker.prediction.progress import StepProgress

log = logging.getLogger(__name__)

TRIES = 2  # a job whose engine dies gets a fresh one, once
CARD_FAULTS = 6  # one after the other, until the worker stops: of three jobs at least
CARD_REMEDY = (
    "reboot; if that does not help, look for Xid in the output of dmesg, and take back any"
    " overclocking"
)
RESTARTS = (2.0, 30.0)  # seconds between two deaths of the engine: the first, the longest


class Runner:
    """Used by one thread, but for `prepare`, `stop_by` and `kill`.

    Args:
        evidence: what is known of jobs that ended badly, on any device.
        hurry: set while nothing is waited for, and no picture made.
        starts: failed starts of the engine in a row until the worker gives up.
    """

    def __init__(
        self,
        device: Device,
        offered: OfferedModels,
        journal: Journal,
        *,
        evidence: Evidence,
        hurry: threading.Event,
        starts: int,
    ):
        self._engine = engine = device.engine
        self._device_name = device.name
        self._offered = offered
        self._journal = journal
        self._hurry = hurry
        self._starts = starts
        self._predictor = device.predictor or journal.predictor
        self._blame = Blame(
            engine,
            offered,
            evidence=evidence,
            start=self._have_engine,
            is_over=lambda: hurry.is_set() or elapsed_seconds() > self._stop_at,
            hurry=hurry,
        )
        self._failed = evidence.failed
        self._backoff = Backoff(*RESTARTS)
        self._stop_at = inf
        self._card_faults = 0  # since the last job that was made
        self._at_work: _AtWork | None = None

    def stop_by(self, moment: float) -> None:
        """Make no job that would not be done by then (elapsed_seconds()); from any thread.

        The one at work is stopped at once where its own steps, or jobs before it, say so.
        """
        self._stop_at = moment
        if (at_work := self._at_work) is not None:
            self._stop_if_too_late(at_work)

    @property
    def seconds_left(self) -> float | None:
        """Of the job at work; None where there is none, or nothing is known. From any thread."""
        at_work = self._at_work
        return at_work.seconds_left() if at_work else None

    def start(self, unless: threading.Event) -> None:
        """Have a running engine. Raises EngineUnusable after `starts` failed starts.

        It is not started `unless` is set, and its death while that is set is no failure.
        """
        for tries_left in reversed(range(self._starts)):
            if unless.is_set():
                return
            try:
                with self._journal.timeline.during(Phase.STARTING):
                    log.info("engine ready on %s", self._engine.start())
            except EngineError as error:
                if unless.is_set():
                    return
                log.error("the engine did not start: %s", error)
                if not tries_left or isinstance(error, DeviceUnusable):
                    raise EngineUnusable(str(error)) from error
                unless.wait(self._backoff.delay())
            else:
                return

    def stop(self) -> None:
        """End the engine, which frees the device."""
        self._engine.stop()

    def kill(self) -> None:
        """End the engine and the job at work at once; from any thread."""
        self._engine.kill()

    @property
    def is_running(self) -> bool:
        return self._engine.is_alive

    @property
    def silent_seconds(self) -> float:
        """Since the engine's last word; from any thread."""
        return self._engine.silent_seconds

    def prepare(self, work: Work) -> None:
        """Have the model of a job that waits read while another one is at work; any thread may."""
        self._engine.prepare(work.params, work.model)

    def may_share(self, batch: Sequence[Work]) -> bool:
        """Whether jobs will all be done in one batch before the first of them is over, and sooner
        than one by one."""
        whole, family = common_params(members_of(batch)), batch[0].model.family
        seconds = self._predictor.predict(whole, family).high
        now = elapsed_seconds()
        return all(now + seconds < self._limit(work) for work in batch) and (
            self._predictor.is_sooner_together(whole, [work.params for work in batch], family)
        )

    def run_together(self, batch: Sequence[Work]) -> tuple[Generation, ...]:
        """Make the pictures of jobs that share a batch.

        Raises what `run` does, and EngineError where the engine dies. It tries once, and holds a
        death against nobody: each job is to be run alone then.
        """
        log.debug("%d jobs share a batch", len(batch))
        self._blame.insist_on_same_files(batch[0].job.model)
        self._have_engine()
        try:
            generations = self._generate(batch)
        except EngineError as error:
            self._insist_on_device(error)
            self._hurry.wait(self._backoff.delay())
            raise
        self._learn(batch, generations[0])
        return generations

    def run(self, work: Work) -> Generation:
        """Make the job's pictures; an engine that dies under it is replaced, and tries once more.

        Where it can't be made with the LoRAs and textual inversions that its client has named, it
        is made without them, and noted. A job that failed is not tried again when it comes again
        soon.

        A fault of the card is held against no file. Raises JobError where there will be none,
        NothingToServe when its model was the last one that could be used and nobody waits for its
        files, and EngineUnusable as `start` does, or when the last one kills engines, or the card
        fails again and again.
        """
        self._have_engine()  # a dead device is told as such, not as the request's fault
        self._failed.insist_on_new(work)
        try:
            return self._run_with_less(work)
        except (GenerationFailed, KillsEngines) as error:
            self._failed.add(work, error)
            if isinstance(error, GenerationFailed):
                self._blame.failed(work)
            raise

    def run_between(
        self, members: Sequence[Member], model: Model, until: float
    ) -> tuple[Generation, ...]:
        """What is no picture's job, and learns nothing of its time.

        It is stopped where it is not done by `until` (elapsed_seconds()). Raises what the engine
        does, and TooLate.
        """
        self._have_engine()

        def on_step(done: int, total: int) -> None:
            if elapsed_seconds() > until:
                self._engine.cancel()

        try:
            return self._engine.generate_together(members, model, on_step)
        except Cancelled as error:
            raise TooLate("it took longer than the horde waits for it") from error

    def _have_engine(self) -> None:
        if not self._engine.is_alive:
            self.start(unless=self._hurry)

    def _run_with_less(self, work: Work) -> Generation:
        try:
            return self._run(work, TRIES)
        except (GenerationFailed, KillsEngines) as error:
            plain, notes = without_files(work.params)
            if not notes:
                raise
            log.warning("job %s: %s; it is made without its client's files", work.job.id, error)
        generation = self._run(replace(work, params=plain), 1)
        return replace(generation, notes=(*generation.notes, *notes))

    def _run(self, work: Work, tries: int) -> Generation:
        for tries_left in reversed(range(tries)):
            self._raise_if_too_late(work)
            self._blame.insist_on_same_files(work.job.model)
            self._offered.insist_on_usable(auxiliaries_of(work.params))
            self._have_engine()
            try:
                (generation,) = self._generate([work])
            except AuxiliaryBroken as error:
                self._offered.do_without(error)
                work = _without_score(work, error)
            except (ModelBroken, ModelMissing) as error:
                self._blame.withdraw(work.job.model, str(error))
                raise
            except EngineError as error:
                if self._hurry.is_set():
                    raise Stopping from error
                log.error("job %s: %s", work.job.id, error)
                self._insist_on_device(error)
                self._hurry.wait(self._backoff.delay())
                told = f"{error}; a second engine did no better"
                if isinstance(error, DeviceFault):
                    if not tries_left:
                        raise JobError(told) from error
                    continue
                self._blame.died(work, error)
                if not tries_left:
                    raise KillsEngines(told) from error
            else:
                self._learn([work], generation)
                return generation
        raise AssertionError("the last try returns or raises")

    def _insist_on_device(self, error: EngineError) -> None:
        """Raises EngineUnusable where the card fails again and again, or would."""
        if not isinstance(error, DeviceFault) or self._hurry.is_set():
            return
        self._card_faults += 1
        if isinstance(error, DeviceUnusable):
            raise EngineUnusable(str(error)) from error
        if self._card_faults >= CARD_FAULTS:
            told = f"{error}, {CARD_FAULTS} times one after the other: {CARD_REMEDY}"
            raise EngineUnusable(told) from error

    def _generate(self, batch: Sequence[Work]) -> tuple[Generation, ...]:
        ids = [work.job.id for work in batch]
        for job_id in ids:
            self._journal.move(job_id, JobStage.running)
        at_work = _AtWork(batch, self._expect(batch))

        def on_step(done: int, total: int) -> None:
            for job_id in ids:
                self._journal.stepped(job_id, done, total)
            end = elapsed_seconds() + at_work.progress.seconds_left(done, total)
            if all(end > work.job.over_at for work in batch):
                self._engine.cancel()
            self._stop_if_too_late(at_work)

        self._at_work = at_work
        try:
            with self._journal.timeline.during(Phase.ENGINE):
                generations = self._engine.generate_together(
                    members_of(batch), batch[0].model, on_step
                )
        except Cancelled as error:
            raise self._too_late(batch[0]) from error
        finally:
            self._at_work = None
        seconds = {"loading": generations[0].load_seconds, **generations[0].phases}
        self._journal.timeline.explain(seconds)
        return generations

    def _stop_if_too_late(self, at_work: _AtWork) -> None:
        """Spend nothing on what would not be done before the worker stops."""
        if at_work.is_given_up:
            self._engine.cancel()  # again: the first time, it may not have begun
            return
        left, seconds = self._stop_at - elapsed_seconds(), at_work.seconds_left()
        if seconds is None or seconds <= left:
            return
        at_work.is_given_up = True
        for work in at_work.batch:
            log.info(
                "job %s would take about %.0f s more, and has %.0f s: given back",
                work.job.id,
                seconds,
                max(left, 0.0),
            )
        self._engine.cancel()

    def _expect(self, batch: Sequence[Work]) -> Prediction:
        """Show what the jobs will take and bring, as far as that is known."""
        family = batch[0].model.family
        expected = self._predictor.predict(common_params(members_of(batch)), family)
        for work in batch:
            kudos = estimated_kudos(work.params, family)
            self._journal.expected(work.job.id, expected.seconds, kudos, self._device_name)
        return expected

    def _learn(self, batch: Sequence[Work], generation: Generation) -> None:
        self._backoff.reset()
        self._card_faults = 0
        whole, family = common_params(members_of(batch)), batch[0].model.family
        if whole.return_control_map:  # which uses nothing of the model
            return
        for work in batch:
            self._blame.did_well(work)
        if not generation.was_wide:
            self._predictor.learn(whole, family, generation.run_seconds)

    def _raise_if_too_late(self, work: Work) -> None:
        params, family, now = work.params, work.model.family, elapsed_seconds()
        probable = self._predictor.predict(params, family).seconds  # 0 where nothing is known
        would_be_stopped = now + probable > self._stop_at
        left_seconds = work.job.over_at - now  # none after a sleep of this machine, for example
        if (
            self._hurry.is_set()
            or would_be_stopped
            or left_seconds <= 0
            or self._predictor.takes_longer(left_seconds, params, family)
        ):
            raise self._too_late(work)

    def _limit(self, work: Work) -> float:
        return min(work.job.over_at, self._stop_at)

    def _too_late(self, work: Work) -> TooLate:
        if self._hurry.is_set() or self._stop_at < work.job.over_at:
            return Stopping()
        return TooLate(
            f"can't be done within the {work.job.ttl_seconds} s that the horde gives it;"
            " lower max_power, max_batch or queue_size if this recurs"
        )


def _without_score(work: Work, error: AuxiliaryBroken) -> Work:
    """The job without what a broken file was to tell of its pictures; raises it for any other."""
    scoring = work.params.scoring
    if scoring is None or error.path not in scoring.files:
        raise error
    return replace(work, params=replace(work.params, scoring=None))


@dataclass(slots=True)
class _AtWork:
    """Jobs that the engine makes at this moment."""

    batch: Sequence[Work]
    expected: Prediction
    progress: StepProgress = field(default_factory=StepProgress)
    is_given_up: bool = False

    def seconds_left(self) -> float | None:
        """The best estimate that there is now; None where nothing is known."""
        if self.is_given_up:
            return 0.0
        by_steps = self.progress.probable_seconds_left()
        if by_steps is not None or not self.expected.is_known:
            return by_steps
        return max(0.0, self.expected.seconds - self.progress.age)
