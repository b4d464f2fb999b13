"""The straight line between the horde and the device.

    pop → take in → run → encode → judge → upload → submit

One thread pops ahead, a few read jobs and fetch what they name, one feeds the engine, one encodes,
a few finish pictures; a job moves through them in the order of this file. Every popped id ends
exactly once: submitted, faulted, or over because the horde said so. The journal knows each that has
not ended yet and where it is, so that the next life of a killed worker goes on with it.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any

from hordelib.engine import Generation
from hordelib.errors import EngineError, JobError
from hordelib.files.model import Model
from hordelib.job.batching import Member
from worker.children.engine import EngineProcess
from worker.clock import elapsed_seconds
from worker.errors import EngineUnusable, NotAllowed, UnusableJob, WorkerError
from worker.horde.api import Job, Slot, slots_of
from worker.horde.client import HordeClient
from worker.jobs.journal import Journal
from worker.jobs.results import (
    PAUSED,
    STOPPING,
    UNMADE,
    JobStage,
    Results,
    failed,
    failed_slots,
    fault_reason,
)
from worker.jobs.status import Obstacle, ObstacleKind, StatusView
from worker.jobs.timeline import Phase
from worker.jobs.work import Work
from worker.line.companion import Companion
from worker.line.delivery import Delivery
from worker.line.finishing import Finishing, encoded
from worker.line.gaps import Gaps
from worker.line.intake import Intake
from worker.line.job_ends import Stopping
from worker.line.limits import Limits
from worker.line.pausing import PauseKind, PauseReason
from worker.line.popper import Popper
from worker.line.runner import Runner
from worker.line.waiting_jobs import WaitingJobs
from worker.safety.judging import Judging
from worker.service_manager import restart_follows

log = logging.getLogger(__name__)

POLL_SECONDS = 0.2  # between two looks, where several things may end the wait
ABANDONED_SECONDS = 2.0  # for the other kind of work, once nothing is waited for
IDLE_SECONDS = 1.0  # without jobs, between two looks whether the device is to be freed
FAULT_SECONDS = 60.0  # for telling the horde of a job that could not be read
SILENCE_SECONDS = 1.5  # of the engine, until it is shown
UNDELIVERED = (JobStage.judging, JobStage.delivering)


class _Threads:
    """The threads by what they do, once there are any."""

    popper: threading.Thread
    preparers: list[threading.Thread]
    feeder: threading.Thread
    encoder: threading.Thread
    finishers: list[threading.Thread]
    judge_starter: threading.Thread


class Bridge:
    """Serves jobs until it is told to stop, or can't go on; then `failure` says why.

    Args:
        intake: has the models that are offered, and makes work of jobs.
        judging: says which pictures may leave.
        journal: where each job is, and what an earlier life has left.
    """

    def __init__(
        self,
        horde: HordeClient,
        engine: EngineProcess,
        intake: Intake,
        judging: Judging,
        journal: Journal,
        limits: Limits | None = None,
    ):
        self._limits = limits = limits or Limits()
        self._restart_follows = cache(restart_follows)
        self._horde = horde
        self._intake = intake
        self._journal = journal
        journal.on_over = intake.adapters.release
        self._timeline = journal.timeline
        self._stopping = threading.Event()  # take no more jobs
        self._hurry = threading.Event()  # and don't wait for anything
        self._pause = PauseKind.none
        self._pausing = threading.Lock()
        self._away = (
            threading.Event()
        )  # the engine makes nothing now, and what it had is given back
        self._introduced = threading.Event()  # the horde knows our key
        self._engine_ready = threading.Event()
        self._runner = Runner(
            engine,
            intake.offered,
            journal,
            ban=intake.adapters.ban,
            hurry=self._away,
            starts=limits.engine_starts,
        )
        self._finishing = Finishing(
            judging,
            Delivery(horde, self._hurry),
            journal,
            abreast=max(1, limits.finishers - 1),
            fail=self._fail,
        )
        self._popped: queue.Queue[Job | None] = queue.Queue()
        self._waiting = WaitingJobs()
        self.companions: tuple[Companion[Any], ...] = ()
        """Other kinds of work that are served beside pictures."""
        self.gaps = Gaps(self._waiting.wake, self._hurry)
        self._made: queue.Queue[tuple[Work, Generation] | None] = queue.Queue()
        self._threads: list[threading.Thread] = []
        self._by_work = _Threads()
        self.failure: WorkerError | None = None

    def accompany(self, companion: Companion[Any]) -> None:
        """Serve another kind of work too, from `start` on."""
        self.companions = (*self.companions, companion)

    # ---- pop -------------------------------------------------------------------------------

    def _pop_jobs(self) -> None:
        """Keeps some jobs ahead of the engine. Ends when the bridge stops."""
        popper = Popper(
            self._horde,
            self._intake.offered.offer,
            self._stopping,
            journal=self._journal,
            limits=self._limits,
        )
        with self._timeline.during(Phase.STARTING):
            popper.introduce()
            self._introduced.set()
            self._settle_debts()
            self._engine_ready.wait()
            self._finishing.wait_for_judge()
        while self._wait_for_room():
            self._when_popped(popper.pop())

    def _wait_for_room(self) -> bool:
        """Until one more job may be popped; False where the bridge stops."""
        self._journal.wait_for(lambda: self._stopping.is_set() or self._has_room())
        return not self._stopping.is_set()

    def _has_room(self) -> bool:
        return not self._pause and self._limits.have_room(self._journal.jobs())

    def _settle_debts(self) -> None:
        """What an earlier life of the worker has left: deliver what it has finished, make again
        what can still be in time, and fault the rest."""
        to_make: list[Job] = []
        for debt in self._journal.owed():
            match debt:
                case Job():
                    to_make.append(debt)
                case Results():
                    self._finishing.add(debt)
                case _:
                    raise TypeError(f"{debt} in the journal of pictures")
        if to_make:
            log.info("jobs of an earlier life that can still be made: %d", len(to_make))
        for job in to_make:
            if self._pause:
                self._finishing.add(failed(job, PAUSED))
            elif self._stopping.is_set():
                self._give_back(job.id, job.slots)
            else:
                self._popped.put(job)

    def _give_back(self, job_id: str, slots: Sequence[Slot]) -> None:
        """Nothing was made of it, for a pause or a stop: the next life does it where one begins at
        once, and another worker otherwise."""
        if self._is_away_for_a_pause:
            log.info("job %s: given back, since the worker is paused", job_id)
            self._finishing.add(failed_slots(slots, PAUSED))
        elif self._restart_follows():
            log.info("job %s: left to the next life", job_id)
            self._journal.leave(job_id)
        else:
            self._finishing.add(failed_slots(slots, STOPPING))

    def _when_popped(self, popped: Job | UnusableJob | None) -> None:
        match popped:
            case Job():
                self._journal.popped(popped.slots, popped.model, popped.asked)
                self._popped.put(popped)
            case UnusableJob(ids=ids):
                slots = slots_of(ids, ("",) * len(ids), elapsed_seconds() + FAULT_SECONDS)
                self._journal.popped(slots, "")
                self._finishing.add(failed_slots(slots, str(popped)))
            case None:
                pass

    # ---- take in: parse and fetch ----------------------------------------------------------

    def _take_in_jobs(self) -> None:
        """With several of these threads, downloads of one job don't keep the next one waiting."""
        while (job := self._popped.get()) is not None:
            self._take_in(job)

    def _take_in(self, job: Job) -> None:
        """What can't be served is faulted at once. In a hurry, nothing is read any more, and what
        was given back meanwhile is done with."""
        is_ours = self._journal.move(job.id, JobStage.reading, of=[JobStage.popped])
        if self._hurry.is_set() or not is_ours:
            return
        try:
            with self._timeline.during(Phase.TAKING_IN):
                work = self._intake.take_in(job)
        except Exception as error:  # noqa: BLE001 - the job boundary
            self._finishing.add(failed(job, fault_reason(error)))
            return
        seconds = self._runner.expected_seconds(work.params, work.model.family)
        self._journal.understood(job.id, work.params, seconds)
        if self._journal.move(job.id, JobStage.waiting, of=[JobStage.reading]):
            self._runner.prepare(work)
            self._waiting.add(work)

    # ---- run -------------------------------------------------------------------------------

    def _run_jobs(self) -> None:
        """Feeds the engine, job after job. Ends after the last one."""
        self._introduced.wait()
        if self._limits.engine and self._pause < PauseKind.finish:
            self._runner.start(unless=self._away)
        self._engine_ready.set()
        while batch := self._next_batch():
            with self._timeline.during(Phase.HANDING_OVER):
                for work, outcome in zip(batch, self._run(batch), strict=True):
                    self._hand_over(work, outcome)

    def _hand_over(self, work: Work, outcome: Generation | Results | None) -> None:
        match outcome:
            case Generation():
                self._journal.move(work.job.id, JobStage.encoding)
                self._made.put((work, outcome))
            case Results():
                self._finishing.add(outcome)
            case None:
                self._give_back(work.job.id, work.job.slots)

    def _run(self, batch: list[Work]) -> Iterable[Generation | Results | None]:
        """Jobs that share a batch; each alone, where there is one or where that did not work."""
        generations = self._run_together(batch) if len(batch) > 1 else ()
        return generations or map(self._run_alone, batch)

    def _run_together(self, batch: list[Work]) -> tuple[Generation, ...]:
        """Nothing where it did not work, for whatever reason: no job fails for another's sake."""
        try:
            return self._runner.run_together(batch)
        except Exception as error:  # noqa: BLE001 - the boundary of all of these jobs
            if not self._away.is_set():
                why = fault_reason(error)
                log.warning("%d jobs in one batch: %s; one by one now", len(batch), why)
            return ()

    def _run_alone(self, work: Work) -> Generation | Results | None:
        """Nothing of a job that the worker has no time for any more."""
        try:
            return self._runner.run(work)
        except Stopping:
            return None
        except WorkerError as error:  # it stops the worker, which owes this job an end
            self._fail(error)
            return failed(work.job, str(error))
        except Exception as error:  # noqa: BLE001 - the job boundary
            return failed(work.job, fault_reason(error))

    def _run_between(self, member: Member, model: Model) -> Generation:
        """What waits for a gap; in a pause that frees the device, it neither starts the engine nor
        has it start again."""
        if self._pause >= PauseKind.finish and not self._runner.is_running:
            raise JobError(PAUSED)
        self._return_to_device()
        try:
            return self._runner.run_between(member, model)
        except EngineError as error:
            if self._is_away_for_a_pause:
                raise JobError(PAUSED) from error
            raise
        except EngineUnusable as error:
            self._fail(error)
            raise

    # ---- encode ------------------------------------------------------------------------------

    def _encode_pictures(self) -> None:
        """Waits for nothing but the disk: from here on the pictures survive a killed worker."""
        while (made := self._made.get()) is not None:
            work, generation = made
            try:
                results = encoded(work, generation)
            except Exception as error:  # noqa: BLE001 - the job boundary
                results = failed(work.job, fault_reason(error))
            self._journal.made(results, _seconds_of(generation))
            self._finishing.add(results)

    # ---- life ------------------------------------------------------------------------------

    def start(self) -> None:
        threads = self._by_work
        threads.popper = self._spawn("popper", self._pop_jobs)
        threads.preparers = self._spawn_all("preparer", self._take_in_jobs, self._limits.preparers)
        threads.feeder = self._spawn("feeder", self._run_jobs)
        threads.encoder = self._spawn("encoder", self._encode_pictures)
        threads.finishers = self._spawn_all(
            "finisher", self._finishing.work, self._limits.finishers
        )
        threads.judge_starter = self._spawn("judge starter", self._start_judge)
        self._spawn("closer", self._close)
        for companion in self.companions:
            companion.start(self)

    def stop(self, within: float = float("inf")) -> None:
        """Take no more jobs; those in hand are finished, if they can be within so many seconds."""
        self._runner.stop_by(elapsed_seconds() + within)
        self._give_back_what_is_late()
        if not self._stopping.is_set():
            self._timeline.begin(Phase.STOPPING)
        self._stopping.set()
        for companion in self.companions:
            companion.stop()
        self._journal.wake()
        if not self._engine_ready.is_set():
            self._away.set()
            self._runner.kill()  # it is still starting, for nothing
        self._introduced.set()
        self._engine_ready.set()
        self._finishing.wait_no_more()

    def abandon(self) -> None:
        """Stop the job at work too, and fault it; nothing is waited for.

        Pictures that are finished and not delivered yet stay in the ledger.
        """
        self._hurry_up()
        for companion in self.companions:
            companion.abandon()
        self.stop(0)
        self._runner.kill()
        self._finishing.dismiss_judge()

    def _close(self) -> None:
        """Once it is to stop: let each thread end after those that it gets its work from."""
        threads = self._by_work
        self._stopping.wait()
        for companion in self.companions:
            self._await(companion)
        threads.popper.join()
        self._end_preparers()
        self._waiting.close()
        threads.feeder.join()
        self._give_back_the_rest()
        self._runner.stop()
        self._made.put(None)
        threads.encoder.join()
        while threads.judge_starter.is_alive():  # it is still starting, for nothing but debts
            self._finishing.dismiss_judge()
            threads.judge_starter.join(POLL_SECONDS)
        for _ in threads.finishers:
            self._finishing.close()
        for finisher in threads.finishers:
            finisher.join()
        self._finishing.stop_judge()
        self._journal.predictor.keep()
        for row in self._journal.jobs():
            log.error("a bug of ours: job %s is still in hand, %s", row.job_id, row.stage)

    def _await(self, companion: Companion[Any]) -> None:
        """It still needs the engine and the judge for what it has in hand."""
        while not companion.join(POLL_SECONDS):
            if self._hurry.is_set() and companion.join(ABANDONED_SECONDS):
                return

    def _end_preparers(self) -> None:
        """Once they have read all jobs; in a hurry, downloads are left that nobody waits for."""
        preparers = self._by_work.preparers
        for _ in preparers:
            self._popped.put(None)
        while any(each.is_alive() for each in preparers) and not self._hurry.is_set():
            self._hurry.wait(POLL_SECONDS)

    def _give_back_what_is_late(self) -> None:
        """At once, so that others make what would wait here for nothing."""
        for work in self._waiting.take_out(self._runner.late_ones):
            self._give_back(work.job.id, work.job.slots)

    def _give_back_the_rest(self) -> None:
        """What nobody makes any more, once the feeder has ended."""
        for row in self._journal.jobs():
            if row.stage in UNMADE:
                self._give_back(row.job_id, row.slots)

    def pause(self, reasons: Sequence[PauseReason]) -> None:
        """Ask for no more jobs until `resume`; the greatest kind of these says what becomes of
        those in hand. To be called again as the reasons change."""
        kind = max(reason.kind for reason in reasons)
        with self._pausing:
            if not self._pause:
                self._timeline.begin(Phase.PAUSED)
            self._pause = kind
            self._journal.say(
                Obstacle("; ".join(each.told for each in reasons), ObstacleKind.paused)
            )
            if kind is PauseKind.at_once and not self._away.is_set():
                self._leave_device()

    def resume(self) -> None:
        with self._pausing:
            if self._pause:
                self._pause = PauseKind.none
                self._journal.say(Obstacle())
                self._timeline.end(Phase.PAUSED)
        self._journal.wake()

    def _leave_device(self) -> None:
        """The job at work is given back by the thread that loses its engine."""
        self._away.set()
        self._runner.kill()
        self._waiting.take_out(lambda waiting: waiting)
        for row in self._journal.jobs():
            if row.stage in UNMADE and row.stage is not JobStage.running:
                self._give_back(row.job_id, row.slots)

    def _return_to_device(self) -> None:
        """By the engine's own thread: no death of an engine before is held against a job."""
        with self._pausing:
            if not self._is_away_for_a_pause and not self._hurry.is_set():
                self._away.clear()

    @property
    def _is_away_for_a_pause(self) -> bool:
        return self._pause is PauseKind.at_once

    def _hurry_up(self) -> None:
        self._hurry.set()
        self._away.set()

    def view(self) -> StatusView:
        return self._journal.view()

    @property
    def models(self) -> Sequence[str]:
        """The names of those that are offered."""
        return tuple(self._intake.offered.models)

    @property
    def stop_seconds(self) -> float:
        """What its owner gives the jobs in hand at a signal."""
        return self._limits.stop_seconds

    @property
    def is_paused(self) -> bool:
        return bool(self._pause)

    @property
    def has_paused(self) -> bool:
        """Whether nothing is in hand, and the device free unless the pause leaves it as it is."""
        is_free = self._pause is PauseKind.rest or not self._runner.is_running
        has_company = any(companion.in_hand for companion in self.companions)
        return not self._journal.in_hand and not has_company and is_free

    @property
    def is_ready(self) -> bool:
        """Whether it asks for jobs, or would if it were not paused."""
        return self._introduced.is_set() and self._engine_ready.is_set()

    @property
    def is_stopping(self) -> bool:
        return self._stopping.is_set()

    @property
    def in_hand(self) -> int:
        """Images that were popped and have not ended."""
        return self._journal.in_hand

    def watch(self) -> None:
        """To be called often: shows an engine that does not answer, and looks after the ledger."""
        self._journal.tend()
        silent_seconds = self._runner.silent_seconds
        self._journal.silent(silent_seconds if silent_seconds > SILENCE_SECONDS else 0.0)

    def join(self, timeout: float) -> bool:
        """Wait for the end of all threads, up to `timeout` seconds; whether they have ended."""
        end = elapsed_seconds() + timeout
        for thread in self._threads:
            thread.join(max(0.0, end - elapsed_seconds()))
        return not any(thread.is_alive() for thread in self._threads)

    @property
    def busy(self) -> list[str]:
        """The names of threads that have not ended."""
        return [thread.name for thread in self._threads if thread.is_alive()]

    def _start_judge(self) -> None:
        self._introduced.wait()
        if self._limits.engine:
            self._finishing.start_judge(unless=self._stopping)
        else:
            self._finishing.wait_no_more()

    def _next_batch(self) -> list[Work]:
        """The next job, with those that share its batch, once there is room behind the engine.

        Nothing after the last one.

        A paused worker without jobs has no engine.
        """
        with self._timeline.during(Phase.DELIVERING):
            self._journal.wait_for(lambda: self._hurry.is_set() or not self._is_much_undelivered())
        while True:
            try:
                patience = IDLE_SECONDS if self.gaps.is_empty else 0.0
                batch = self._waiting.take(self._runner.are_in_time, patience)
            except queue.Empty:
                if self.gaps.take_turn(self._run_between):
                    continue
                is_left = self._pause >= PauseKind.finish and not self._journal.in_hand
                if is_left and self._runner.is_running:
                    self._runner.stop()
            else:
                self._return_to_device()
                return batch

    def _is_much_undelivered(self) -> bool:
        """Nothing more is made then."""
        undelivered = sum(row.stage in UNDELIVERED for row in self._journal.jobs())
        return undelivered >= self._limits.most_unfinished

    def _spawn_all(self, name: str, work: Callable[[], None], count: int) -> list[threading.Thread]:
        return [self._spawn(f"{name}-{number}", work) for number in range(count)]

    def _spawn(self, name: str, work: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=self._guarded, args=(work,), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def _guarded(self, work: Callable[[], None]) -> None:
        """A thread's outermost frame: what stops one stops the bridge, and is told."""
        try:
            work()
        except WorkerError as error:
            self._fail(error)
        except Exception as error:
            log.exception("a bug of ours stopped the bridge")
            self._fail(WorkerError(f"internal error: {type(error).__name__}: {error}"))

    def _fail(self, error: WorkerError) -> None:
        self.failure = self.failure or error
        if isinstance(error, NotAllowed):
            self._hurry_up()  # what is submitted with this key is not taken either
        self.stop(0)


def _seconds_of(generation: Generation) -> float:
    """The job's own part of the time on the device."""
    return generation.share * (generation.load_seconds + generation.run_seconds)
