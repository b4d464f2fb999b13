"""The straight line between the horde and the device.

    pop → take in → run → encode → judge → upload → submit

One thread pops ahead, a few read jobs and fetch what they name, one feeds the engine, one encodes,
a few finish pictures; a job moves through them in the order of this file. Every popped id ends
exactly once: submitted, faulted, or over because the horde said so. The books know each that has
not ended yet, so that the next life of a killed worker goes on with it.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

from hordelib.engine import Generation
from worker.children.engine import EngineProcess
from worker.errors import NotAllowed, UnusableJob, WorkerError
from worker.horde.api import Job, slots_of
from worker.horde.client import HordeClient
from worker.jobs.journal import Books
from worker.jobs.results import STOPPING, Results, failed, failed_slots, fault_reason
from worker.jobs.status import Kind, Obstacle
from worker.jobs.timeline import Phase
from worker.jobs.work import Work
from worker.line.delivery import Delivery
from worker.line.encoding import encoded
from worker.line.finishing import Finishing
from worker.line.intake import Intake
from worker.line.limits import Pace
from worker.line.places import Places
from worker.line.popper import Popper
from worker.line.runner import Runner, Stopping
from worker.line.waiting_jobs import Line
from worker.safety.judging import Judging
from worker.service_manager import restart_follows

log = logging.getLogger(__name__)

Item = TypeVar("Item")

POLL_SECONDS = 0.2  # between two looks, where several things may end the wait
IDLE_SECONDS = 1.0  # without jobs, between two looks whether the device is to be freed
FAULT_SECONDS = 60.0  # for telling the horde of a job that could not be read
SILENCE_SECONDS = 1.5  # of the engine, until it is shown


@dataclass(frozen=True, slots=True)
class Done:
    """A job whose pictures are made."""

    work: Work
    generation: Generation


class _Crew:
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
        books: are told of every job's way, and know what an earlier life has left.
    """

    def __init__(
        self,
        horde: HordeClient,
        engine: EngineProcess,
        intake: Intake,
        judging: Judging,
        books: Books,
        pace: Pace | None = None,
    ):
        self._pace = pace = pace or Pace()
        self._restart_follows = cache(restart_follows)
        self._horde = horde
        self._intake = intake
        self._books = books
        self._timeline = books.board.timeline
        self._stopping = threading.Event()  # take no more jobs
        self._hurry = threading.Event()  # and don't wait for anything
        self._paused = threading.Event()
        self._introduced = threading.Event()  # the horde knows our key
        self._engine_ready = threading.Event()
        self._runner = Runner(
            engine,
            intake.offered,
            books,
            ban=intake.adapters.ban,
            hurry=self._hurry,
            starts=pace.engine_starts,
        )
        self._finishing = Finishing(
            judging,
            Delivery(horde, self._hurry),
            books,
            abreast=max(1, pace.finishers - 1),
            over=intake.adapters.release,
            fail=self._fail,
        )
        self._places = Places(pace.waiting_jobs, pace.seconds_ahead, pace.most_ahead)
        self._popped: queue.Queue[Job | None] = queue.Queue()
        self._being_read: dict[str, Job] = {}
        self._waiting = Line()
        self._done: queue.Queue[Done | None] = queue.Queue()
        self._threads: list[threading.Thread] = []
        self._crew = _Crew()
        self.failure: WorkerError | None = None

    # ---- pop -------------------------------------------------------------------------------

    def _pop_jobs(self) -> None:
        """Keeps `waiting_jobs` ahead of the engine. Ends when the bridge stops."""
        popper = Popper(
            self._horde,
            self._intake.offered.offer,
            self._stopping,
            books=self._books,
            pace=self._pace,
        )
        with self._timeline.during(Phase.STARTING):
            popper.introduce()
            self._introduced.set()
            self._settle_debts()
            self._engine_ready.wait()
            self._finishing.wait_for_judge()
        while self._places.take():
            self._when_popped(popper.pop())

    def _settle_debts(self) -> None:
        """What an earlier life of the worker has left: deliver what it has finished, make again
        what can still be in time, and fault the rest."""
        to_make: list[Job] = []
        for debt in self._books.owed():
            match debt:
                case Job():
                    to_make.append(debt)
                case Results():
                    self._finishing.add(debt)
        if to_make:
            log.info("jobs of an earlier life that can still be made: %d", len(to_make))
        for job in to_make:
            if self._paused.is_set():
                self._finishing.add(failed(job, "the worker is paused"))
            elif self._stopping.is_set():
                self._give_back(job)
            else:
                self._places.take_anyway()
                self._popped.put(job)

    def _give_back(self, job: Job) -> None:
        """Nothing was made of it: the next life does it where one begins at once, and another
        worker otherwise."""
        if self._restart_follows():
            log.info("job %s: left to the next life", job.id)
            self._intake.adapters.release(job.id)
            self._books.over(job.id, [])
        else:
            self._finishing.add(failed(job, STOPPING))

    def _when_popped(self, popped: Job | UnusableJob | None) -> None:
        match popped:
            case Job():
                self._books.popped(popped.slots, popped.model, popped.asked)
                self._popped.put(popped)
            case UnusableJob(ids=ids):
                slots = slots_of(ids, ("",) * len(ids), time.monotonic() + FAULT_SECONDS)
                self._books.popped(slots, "")
                self._finishing.add(failed_slots(slots, str(popped)))
                self._places.free()
            case None:
                self._places.free()

    # ---- take in: parse and fetch ----------------------------------------------------------

    def _take_in_jobs(self) -> None:
        """With several of these threads, downloads of one job don't keep the next one waiting."""
        while (job := self._popped.get()) is not None:
            self._take_in(job)

    def _take_in(self, job: Job) -> None:
        """What can't be served is faulted at once, and its place is free again."""
        self._being_read[job.id] = job
        taken: Work | Results | None = None
        try:
            if not self._hurry.is_set():
                with self._timeline.during(Phase.TAKING_IN):
                    taken = self._intake.take_in(job)
        except Exception as error:  # noqa: BLE001 - the job boundary
            taken = failed(job, fault_reason(error))
        if self._being_read.pop(job.id, None) is None:
            return  # it was given back meanwhile
        match taken:
            case Work():
                self._books.understood(job.id, taken.params)
                self._runner.prepare(taken)
                seconds = self._runner.expected_seconds(taken.params, taken.model.family)
                self._places.expect(job.id, seconds)  # before somebody can be done with it
                self._waiting.add(taken)
                return
            case Results():
                self._finishing.add(taken)
            case None:
                self._give_back(job)
        self._places.free()

    # ---- run -------------------------------------------------------------------------------

    def _run_jobs(self) -> None:
        """Feeds the engine, job after job. Ends after the last one."""
        self._introduced.wait()
        if not self._paused.is_set():
            self._runner.start(unless=self._stopping)
        self._engine_ready.set()
        while batch := self._next_batch():
            with self._timeline.during(Phase.HANDING_OVER):
                for outcome in self._run(batch):
                    match outcome:
                        case Done():
                            self._done.put(outcome)
                        case Results():
                            self._finishing.add(outcome)
                        case Job():
                            self._give_back(outcome)
                for work in batch:
                    self._places.free(work.job.id)

    def _run(self, batch: list[Work]) -> Iterator[Done | Results | Job]:
        """Jobs that share a batch; each alone, where there is one or where that did not work."""
        generations = self._run_together(batch) if len(batch) > 1 else ()
        if generations:
            return map(Done, batch, generations)
        return map(self._run_alone, batch)

    def _run_together(self, batch: list[Work]) -> tuple[Generation, ...]:
        """Nothing where it did not work, for whatever reason: no job fails for another's sake."""
        try:
            return self._runner.run_together(batch)
        except Exception as error:  # noqa: BLE001 - the boundary of all of these jobs
            if not self._hurry.is_set():
                why = fault_reason(error)
                log.warning("%d jobs in one batch: %s; one by one now", len(batch), why)
            return ()

    def _run_alone(self, work: Work) -> Done | Results | Job:
        """A job that the worker has no time for any more comes back as it was."""
        try:
            return Done(work, self._runner.run(work))
        except Stopping:
            return work.job
        except WorkerError as error:  # it stops the worker, which owes this job an end
            self._fail(error)
            return failed(work.job, str(error))
        except Exception as error:  # noqa: BLE001 - the job boundary
            return failed(work.job, fault_reason(error))

    # ---- encode ------------------------------------------------------------------------------

    def _encode_pictures(self) -> None:
        """Waits for nothing but the disk: from here on the pictures survive a killed worker."""
        while (done := self._done.get()) is not None:
            try:
                results = encoded(done.work, done.generation)
            except Exception as error:  # noqa: BLE001 - the job boundary
                results = failed(done.work.job, fault_reason(error))
            self._books.made(results, _seconds_of(done.generation))
            self._finishing.add(results)

    # ---- life ------------------------------------------------------------------------------

    def start(self) -> None:
        crew = self._crew
        crew.popper = self._spawn("popper", self._pop_jobs)
        crew.preparers = self._spawn_all("preparer", self._take_in_jobs, self._pace.preparers)
        crew.feeder = self._spawn("feeder", self._run_jobs)
        crew.encoder = self._spawn("encoder", self._encode_pictures)
        crew.finishers = self._spawn_all("finisher", self._finishing.work, self._pace.finishers)
        crew.judge_starter = self._spawn("judge starter", self._start_judge)
        self._spawn("closer", self._close)

    def stop(self, within: float = float("inf")) -> None:
        """Take no more jobs; those in hand are finished, if they can be within so many seconds."""
        self._runner.stop_by(time.monotonic() + within)
        self._give_back_what_is_late()
        if not self._stopping.is_set():
            self._timeline.begin(Phase.STOPPING)
        self._stopping.set()
        self._places.close()
        if not self._engine_ready.is_set():
            self._runner.kill()  # it is still starting, for nothing
        self._introduced.set()
        self._engine_ready.set()
        self._finishing.wait_no_more()

    def abandon(self) -> None:
        """Stop the job at work too, and fault it; nothing is waited for.

        Pictures that are finished and not delivered yet stay in the ledger.
        """
        self._hurry.set()
        self.stop(0)
        self._runner.kill()
        self._finishing.dismiss_judge()

    def _close(self) -> None:
        """Once it is to stop: let each thread end after those that it gets its work from."""
        crew = self._crew
        self._stopping.wait()
        crew.popper.join()
        self._end_preparers()
        self._waiting.close()
        crew.feeder.join()
        self._give_back_what_waits()
        self._runner.stop()
        self._done.put(None)
        crew.encoder.join()
        while crew.judge_starter.is_alive():  # it is still starting, for nothing but debts
            self._finishing.dismiss_judge()
            crew.judge_starter.join(POLL_SECONDS)
        for _ in crew.finishers:
            self._finishing.close()
        for finisher in crew.finishers:
            finisher.join()
        self._finishing.stop_judge()
        self._books.forecast.keep()

    def _end_preparers(self) -> None:
        """Once they have read all jobs; in a hurry, downloads are left that nobody waits for."""
        preparers = self._crew.preparers
        for _ in preparers:
            self._popped.put(None)
        while any(each.is_alive() for each in preparers) and not self._hurry.is_set():
            self._hurry.wait(POLL_SECONDS)
        given_back = [self._being_read.pop(job_id, None) for job_id in list(self._being_read)]
        for job in (*given_back, *_rest_of(self._popped)):
            if job is not None:
                self._give_back(job)
        for _ in preparers:  # those that come back late
            self._popped.put(None)

    def _give_back_what_is_late(self) -> None:
        """At once, so that others make what would wait here for nothing."""
        for work in self._waiting.take_out(self._runner.late_ones):
            self._give_back(work.job)
            self._places.free(work.job.id)

    def _give_back_what_waits(self) -> None:
        """Where the engine failed, nobody takes it any more."""
        for work in self._waiting.rest():
            self._give_back(work.job)

    def pause(self) -> None:
        """Finish what is in hand, then free the device, until `resume`."""
        if not self._paused.is_set():
            self._paused.set()
            self._places.hold()
            self._timeline.begin(Phase.PAUSED)
            self._books.board.say(Obstacle("paused", Kind.paused))

    def resume(self) -> None:
        if self._paused.is_set():
            self._paused.clear()
            self._places.resume()
            self._timeline.end(Phase.PAUSED)
            self._books.board.say(Obstacle())

    @property
    def obstacle(self) -> Obstacle:
        """What keeps it from jobs."""
        return self._books.board.obstacle

    @property
    def stop_seconds(self) -> float:
        """What its owner gives the jobs in hand at a signal."""
        return self._pace.stop_seconds

    @property
    def is_paused(self) -> bool:
        return self._paused.is_set()

    @property
    def is_device_free(self) -> bool:
        """Whether nothing is in hand, and no engine there."""
        return not self._books.in_hand and not self._runner.is_running

    @property
    def is_ready(self) -> bool:
        """Whether it asks for jobs, or would if it were not paused."""
        return self._introduced.is_set() and self._engine_ready.is_set()

    @property
    def is_stopping(self) -> bool:
        return self._stopping.is_set()

    @property
    def in_hand(self) -> int:
        """Images that were popped and are not over."""
        return self._books.in_hand

    def watch(self) -> None:
        """To be called often: shows an engine that does not answer, and looks after the books."""
        self._books.tend()
        silent_seconds = self._runner.silent_seconds
        self._books.board.silent(silent_seconds if silent_seconds > SILENCE_SECONDS else 0.0)

    def join(self, timeout: float) -> bool:
        """Wait for the end of all threads, up to `timeout` seconds; whether they have ended."""
        end = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    @property
    def busy(self) -> list[str]:
        """The names of threads that have not ended."""
        return [thread.name for thread in self._threads if thread.is_alive()]

    def _start_judge(self) -> None:
        self._introduced.wait()
        self._finishing.start_judge(unless=self._stopping)

    def _next_batch(self) -> list[Work]:
        """The next job, with those that share its batch, once there is room behind the engine.

        Nothing after the last one.

        A paused worker without jobs has no engine.
        """
        with self._timeline.during(Phase.DELIVERING):
            most = self._pace.most_unfinished
            while self._finishing.unfinished >= most and not self._hurry.is_set():
                self._hurry.wait(POLL_SECONDS)  # undelivered is enough: nothing more is made
        while True:
            try:
                return self._waiting.take(self._runner.are_in_time, IDLE_SECONDS)
            except queue.Empty:
                if self._paused.is_set() and not self._books.in_hand and self._runner.is_running:
                    self._runner.stop()

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
            self._hurry.set()  # what is submitted with this key is not taken either
        self.stop(0)


def _seconds_of(generation: Generation) -> float:
    """The job's own part of the time on the device."""
    return generation.share * (generation.load_seconds + generation.run_seconds)


def _rest_of(waiting: queue.Queue[Item | None]) -> Iterator[Item]:
    """What nobody has taken yet."""
    with suppress(queue.Empty):
        while True:
            if (item := waiting.get_nowait()) is not None:
                yield item
