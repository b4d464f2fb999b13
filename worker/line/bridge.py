"""The straight line between the horde and the devices.

    pop → take in → run → encode → judge → upload → submit

One thread pops ahead, a few read jobs and fetch what they name, one feeds each device, one encodes,
a few finish pictures; a job moves through them in the order of this file. Every popped id ends
exactly once: submitted, faulted, or over because the horde said so. The journal knows each that has
not ended yet and where it is, so that the next life of a killed worker goes on with it.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Sequence
from typing import Any

from hordelib.engine import Generation
from worker.clock import elapsed_seconds
from worker.errors import NotAllowed, WorkerError
from worker.horde.api import Job
from worker.horde.client import HordeClient
from worker.jobs.journal import Journal
from worker.jobs.results import (
    JobStage,
    Results,
    failed,
    fault_reason,
)
from worker.jobs.status import StatusView
from worker.jobs.timeline import Phase
from worker.jobs.work import Work
from worker.line.companion import Companion
from worker.line.delivery import Delivery
from worker.line.devices.blame import Evidence
from worker.line.devices.device import Device
from worker.line.devices.device_state import DeviceState
from worker.line.devices.feeder import Outcome, Shared
from worker.line.devices.feeders import Feeders
from worker.line.devices.waiting_jobs import WaitingJobs
from worker.line.finishing import Finishing, encoded
from worker.line.gaps import Gaps
from worker.line.halt import Halt
from worker.line.intake import Intake
from worker.line.limits import Limits
from worker.line.pausing import PauseKind, PauseReason
from worker.line.popper import Popper
from worker.line.popping import Popping
from worker.line.threads import Threads, ThreadsByWork
from worker.safety.judging import Judging

log = logging.getLogger(__name__)

POLL_SECONDS = 0.2  # between two looks, where several things may end the wait
ABANDONED_SECONDS = 2.0  # for the other kind of work, once nothing is waited for
SILENCE_SECONDS = 1.5  # of an engine, until it is shown


class Bridge:
    """Serves jobs until it is told to stop, or can't go on; then `failure` says why.

    Args:
        devices: each with an engine of its own.
        intake: has the models that are offered, and makes work of jobs.
        judging: says which pictures may leave.
        journal: where each job is, and what an earlier life has left.
    """

    def __init__(
        self,
        horde: HordeClient,
        devices: Sequence[Device],
        intake: Intake,
        judging: Judging,
        journal: Journal,
        limits: Limits | None = None,
    ):
        self._limits = limits = (limits or Limits()).of_devices(len(devices))
        self._horde = horde
        self._intake = intake
        self._journal = journal
        journal.on_over = intake.adapters.release
        self._timeline = journal.timeline
        self._halt = halt = Halt(journal)
        self._introduced = threading.Event()  # the horde knows our key
        self._engine_ready = threading.Event()  # one of them
        self._finishing = Finishing(
            judging,
            Delivery(horde, halt.hurry),
            journal,
            abreast=max(1, limits.finishers - 1),
            fail=self._fail,
        )
        self._waiting = WaitingJobs()
        self.companions: tuple[Companion[Any], ...] = ()
        """Other kinds of work that are served beside pictures."""
        self.gaps = Gaps(self._waiting.wake, halt.hurry, journal.unmade, limits.gap_seconds)
        self._made: queue.Queue[tuple[Work, Generation] | None] = queue.Queue()
        self._threads, self._by_work = Threads(self._fail), ThreadsByWork()
        self.failure: WorkerError | None = None
        shared = Shared(
            waiting=self._waiting,
            gaps=self.gaps,
            journal=journal,
            offered=intake.offered,
            limits=limits,
            halt=halt,
            evidence=Evidence(intake.adapters.ban),
            hand_over=self._hand_over,
            fail=self._fail,
            introduced=self._introduced,
            ready=self._engine_ready,
        )
        self._feeders = Feeders(devices, shared)
        popper = Popper(
            horde,
            lambda: self._feeders.offer(intake.offered.offer()),
            halt.stopping,
            journal=journal,
            limits=limits,
        )
        self._popping = Popping(popper, journal, self._finishing, halt, self._has_room)

    def accompany(self, companion: Companion[Any]) -> None:
        """Serve another kind of work too, from `start` on."""
        self.companions = (*self.companions, companion)

    # ---- pop: worker/line/popping.py ---------------------------------------------------------

    def _pop_jobs(self) -> None:
        """Keeps some jobs ahead of the devices. Ends when the bridge stops."""
        with self._timeline.during(Phase.STARTING):
            self._popping.introduce()
            self._introduced.set()
            self._popping.settle_debts()
            self._engine_ready.wait()
            self._finishing.wait_for_judge()
        self._popping.work()

    def _has_room(self) -> bool:
        devices = self._feeders.available
        return not self._halt.pause and self._limits.have_room(self._journal.jobs(), devices)

    # ---- take in: parse and fetch ----------------------------------------------------------

    def _take_in_jobs(self) -> None:
        """With several of these threads, downloads of one job don't keep the next one waiting."""
        while (job := self._popping.popped.get()) is not None:
            self._take_in(job)

    def _take_in(self, job: Job) -> None:
        """What can't be served is faulted at once. In a hurry, nothing is read any more, and what
        was given back meanwhile is done with."""
        is_ours = self._journal.move(job.id, JobStage.reading, of=[JobStage.popped])
        if self._halt.hurry.is_set() or not is_ours:
            return
        try:
            with self._timeline.during(Phase.TAKING_IN):
                work = self._intake.take_in(job)
        except Exception as error:  # noqa: BLE001 - the job boundary
            self._finishing.add(failed(job, fault_reason(error)))
            return
        seconds = self._feeders.expected_seconds(work)
        self._journal.understood(job.id, work.params, seconds)
        if self._journal.move(job.id, JobStage.waiting, of=[JobStage.reading]):
            self._feeders.prepare(work)
            self._waiting.add(work)

    # ---- run -------------------------------------------------------------------------------

    def _hand_over(self, work: Work, outcome: Outcome) -> None:
        """By the thread of the device, `worker/line/devices/feeder.py`."""
        match outcome:
            case Generation():
                self._journal.move(work.job.id, JobStage.encoding)
                self._made.put((work, outcome))
            case Results():
                self._finishing.add(outcome)
            case None:
                self._popping.give_back(work.job.id, work.job.slots)

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
        work, threads, limits = self._by_work, self._threads, self._limits
        work.popper = threads.spawn("popper", self._pop_jobs)
        work.preparers = threads.spawn_all("preparer", self._take_in_jobs, limits.preparers)
        work.feeders = self._feeders.start(threads)
        work.encoder = threads.spawn("encoder", self._encode_pictures)
        work.finishers = threads.spawn_all("finisher", self._finishing.work, limits.finishers)
        work.judge_starter = threads.spawn("judge starter", self._start_judge)
        threads.spawn("closer", self._close)
        for companion in self.companions:
            companion.start(self)

    def stop(self, within: float = float("inf")) -> None:
        """Take no more jobs; those in hand are finished, if they can be within so many seconds."""
        self._feeders.stop_by(elapsed_seconds() + within)
        self._give_back_what_is_late(within)
        self._halt.stop()
        for companion in self.companions:
            companion.stop()
        self._journal.wake()
        self._feeders.end_start()
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
        self._feeders.kill()
        self._finishing.dismiss_judge()

    def _close(self) -> None:
        """Once it is to stop: let each thread end after those that it gets its work from."""
        threads = self._by_work
        self._halt.stopping.wait()
        for companion in self.companions:
            self._await(companion)
        threads.popper.join()
        self._end_preparers()
        self._waiting.close()
        for feeder in threads.feeders:
            feeder.join()
        self._give_back_the_rest()
        self._feeders.end()
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
        self._feeders.keep_seconds()
        for row in self._journal.jobs():
            log.error("a bug of ours: job %s is still in hand, %s", row.job_id, row.stage)

    def _await(self, companion: Companion[Any]) -> None:
        """It still needs the engine and the judge for what it has in hand."""
        while not companion.join(POLL_SECONDS):
            if self._halt.hurry.is_set() and companion.join(ABANDONED_SECONDS):
                return

    def _end_preparers(self) -> None:
        """Once they have read all jobs; in a hurry, downloads are left that nobody waits for."""
        preparers = self._by_work.preparers
        for _ in preparers:
            self._popping.popped.put(None)
        while any(each.is_alive() for each in preparers) and not self._halt.hurry.is_set():
            self._halt.hurry.wait(POLL_SECONDS)

    def _give_back_what_is_late(self, within: float) -> None:
        """At once, so that others make what would wait here for nothing."""
        late = self._waiting.take_out(lambda waiting: self._feeders.late_ones(waiting, within))
        if late:
            log.info("%d waiting jobs can't be made before the end: given back", len(late))
        for work in late:
            self._popping.give_back(work.job.id, work.job.slots)

    def _give_back_the_rest(self) -> None:
        """What nobody makes any more, once the feeder has ended."""
        for row in self._journal.unmade():
            self._popping.give_back(row.job_id, row.slots)

    def pause(self, reasons: Sequence[PauseReason]) -> None:
        """Ask for no more jobs while there are reasons; the greatest kind of these says what
        becomes of those in hand. To be called again as the reasons change, or are none any more.

        What is a reason for some devices alone pauses these, and the others go on.
        """
        with self._halt.changing:
            general = self._feeders.rest(reasons)
            if general:
                self._halt.begin_pause(general)
                if self._halt.is_at_once:
                    self._leave_devices()
            else:
                self._halt.end_pause()
        self._journal.wake()

    def resume(self) -> None:
        self.pause(())

    def _leave_devices(self) -> None:
        """What waits is given back, too."""
        if not self._feeders.leave_devices():
            return
        self._waiting.take_out(lambda waiting: waiting)
        for row in self._journal.unmade():
            if row.stage is not JobStage.running:
                self._popping.give_back(row.job_id, row.slots)

    def _hurry_up(self) -> None:
        self._halt.hurry.set()
        self._feeders.hurry_up()

    def view(self) -> StatusView:
        return self._journal.view()

    @property
    def devices(self) -> Sequence[DeviceState]:
        return self._feeders.states

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
        return bool(self._halt.pause)

    @property
    def has_paused(self) -> bool:
        """Whether nothing is in hand, and the device free unless the pause leaves it as it is."""
        is_free = self._halt.pause is PauseKind.rest or not self._feeders.are_running
        has_company = any(companion.in_hand for companion in self.companions)
        return not self._journal.in_hand and not has_company and is_free

    @property
    def is_ready(self) -> bool:
        """Whether it asks for jobs, or would if it were not paused."""
        return self._introduced.is_set() and self._engine_ready.is_set()

    @property
    def is_stopping(self) -> bool:
        return self._halt.stopping.is_set()

    @property
    def in_hand(self) -> int:
        """Images that were popped and have not ended."""
        return self._journal.in_hand

    @property
    def seconds_ahead(self) -> float:
        """The devices', for the pictures in hand; infinite where that is not known."""
        seconds = sum(row.own_seconds for row in self._journal.unmade())
        return seconds / max(1, self._feeders.available)

    def watch(self) -> None:
        """To be called often: shows an engine that does not answer, and looks after the ledger."""
        self._journal.tend()
        silent_seconds = self._feeders.silent_seconds
        self._journal.silent(silent_seconds if silent_seconds > SILENCE_SECONDS else 0.0)

    def join(self, timeout: float) -> bool:
        """Wait for the end of all threads, up to `timeout` seconds; whether they have ended."""
        return self._threads.join(timeout)

    @property
    def busy(self) -> list[str]:
        """The names of threads that have not ended."""
        return self._threads.busy

    def _start_judge(self) -> None:
        self._introduced.wait()
        if self._limits.engine:
            self._finishing.start_judge(unless=self._halt.stopping)
        else:
            self._finishing.wait_no_more()

    def _fail(self, error: WorkerError) -> None:
        self.failure = self.failure or error
        if isinstance(error, NotAllowed):
            self._hurry_up()  # what is submitted with this key is not taken either
        self.stop(0)


def _seconds_of(generation: Generation) -> float:
    """The job's own part of the time on the device."""
    return generation.share * (generation.load_seconds + generation.run_seconds)
