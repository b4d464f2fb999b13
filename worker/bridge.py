"""The straight line between the horde and the device: pop → take in → run → judge → deliver.

One thread pops ahead, a few read jobs and fetch what they name, one feeds the engine, a few judge
and deliver; a job moves through them in that order. Every popped id ends exactly once: submitted,
faulted, or over because the horde said so.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from hordelib.engine import Generation
from hordelib.errors import EngineError, JobError, ModelBroken, ModelMissing
from worker.backoff import Backoff
from worker.board import Board, ImageEnd, JobRow
from worker.delivery import Delivery
from worker.engine_process import EngineProcess
from worker.errors import EngineUnusable, NotAllowed, NothingToServe, WorkerError
from worker.fault_guard import MOST_FAULTS, FaultGuard
from worker.horde_client import HordeClient
from worker.intake import Intake, Work
from worker.judging import Judging
from worker.popper import Popper
from worker.wire import Job

log = logging.getLogger(__name__)

STOPPING = "the worker is stopping"
POLL_SECONDS = 0.2  # how soon a thread notices that it should stop


@dataclass(frozen=True, slots=True)
class Pace:
    """The bridge's own times and counts."""

    waiting_jobs: int = 1  # popped ahead, beside the one at work
    preparers: int = 2
    deliverers: int = 3
    engine_tries: int = 3  # failed starts in a row until the worker gives up
    idle_seconds: tuple[float, float] = (1.0, 5.0)  # between empty pops: the first, the longest
    first_contact_seconds: float = 30.0  # a horde never reached for so long has a wrong address
    most_faults: int = MOST_FAULTS  # within an hour, before the worker asks for no more


@dataclass(frozen=True, slots=True)
class Fault:
    """A job that can't be done, and why."""

    job: Job
    reason: str


@dataclass(frozen=True, slots=True)
class Done:
    """A job whose pictures are made, and not judged yet."""

    work: Work
    generation: Generation

    @property
    def job(self) -> Job:
        return self.work.job


class Bridge:
    """Serves jobs until it is told to stop, or can't go on; then `failure` says why.

    Args:
        intake: says what is offered, and makes work of jobs.
        judging: says which pictures may leave.
        board: is told of every job's way.
    """

    def __init__(
        self,
        horde: HordeClient,
        engine: EngineProcess,
        intake: Intake,
        judging: Judging,
        *,
        board: Board,
        pace: Pace | None = None,
    ):
        self._horde = horde
        self._engine = engine
        self._intake = intake
        self._judging = judging
        self._board = board
        self._pace = pace or Pace()
        self._stopping = threading.Event()  # take no more jobs
        self._hurry = threading.Event()  # and don't wait for anything
        self._introduced = threading.Event()  # the horde knows our key
        self._engine_ready = threading.Event()
        self._places = threading.Semaphore(self._pace.waiting_jobs + 1)
        self._popped: queue.Queue[Job | None] = queue.Queue()
        self._being_read: dict[str, Job] = {}
        self._waiting: queue.Queue[Work | None] = queue.Queue()
        # Bounded: where nothing can be delivered, nothing more is made.
        self._finished: queue.Queue[Done | Fault | None] = queue.Queue(self._pace.deliverers)
        self._threads: list[threading.Thread] = []
        self._preparers: list[threading.Thread] = []
        self._deliverers: list[threading.Thread] = []
        self._fault_guard = FaultGuard(most_faults=self._pace.most_faults)
        self.failure: WorkerError | None = None

    # ---- life ------------------------------------------------------------------------------

    def start(self) -> None:
        self._preparers = self._spawn_all("preparer", self._take_in_jobs, self._pace.preparers)
        self._deliverers = self._spawn_all("deliverer", self._deliver_jobs, self._pace.deliverers)
        self._spawn("popper", self._pop_jobs)
        self._spawn("feeder", self._run_jobs)

    def stop(self) -> None:
        """Take no more jobs: the one at work is finished, those that wait are faulted."""
        self._stopping.set()
        if not self._engine_ready.is_set():
            self._engine.kill()  # it is still starting, for nothing
        self._introduced.set()
        self._engine_ready.set()

    def abandon(self) -> None:
        """Stop the job at work too, and fault it; nothing is waited for."""
        self._hurry.set()
        self.stop()
        self._engine.kill()
        self._judging.kill()

    @property
    def is_stopping(self) -> bool:
        return self._stopping.is_set()

    def join(self, timeout: float) -> bool:
        """Wait for the end of all threads, up to `timeout` seconds; whether they have ended."""
        end = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _spawn_all(self, name: str, work: Callable[[], None], count: int) -> list[threading.Thread]:
        return [self._spawn(f"{name}-{number}", work) for number in range(count)]

    def _spawn(self, name: str, work: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=self._guard, args=(work,), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def _guard(self, work: Callable[[], None]) -> None:
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
        self.stop()

    # ---- pop -------------------------------------------------------------------------------

    def _pop_jobs(self) -> None:
        """Keeps `waiting_jobs` ahead of the engine. Ends when the bridge stops."""
        popper = Popper(
            self._horde,
            self._intake.offer,
            self._stopping,
            guard=self._fault_guard,
            idle=self._pace.idle_seconds,
            first_contact_seconds=self._pace.first_contact_seconds,
        )
        try:
            popper.introduce()
            self._introduced.set()
            self._engine_ready.wait()
            while self._take_place():
                job = popper.pop()
                if job is None:
                    self._places.release()
                else:
                    self._board.add(JobRow(job.ids[0], job.model, len(job.ids)))
                    self._popped.put(job)
        finally:
            self._end_of_jobs()

    def _end_of_jobs(self) -> None:
        """Let the preparers end, give back what the engine won't come to, and let it end too."""
        for _ in self._preparers:
            self._popped.put(None)
        for preparer in self._preparers:
            while preparer.is_alive() and not self._hurry.is_set():
                preparer.join(POLL_SECONDS)
        for job_id in list(self._being_read):  # a download that nobody waits for any more
            self._give_back(job_id)
        self._fault_waiting()
        self._waiting.put(None)

    def _fault_waiting(self) -> None:
        """Give back at once what the engine will not come to, for another worker to take."""
        with suppress(queue.Empty):
            while (work := self._waiting.get_nowait()) is not None:
                self._finished.put(Fault(work.job, STOPPING))

    def _take_place(self) -> bool:
        while not self._stopping.is_set():
            if self._places.acquire(timeout=POLL_SECONDS):
                return True
        return False

    # ---- take in: parse and fetch ----------------------------------------------------------

    def _take_in_jobs(self) -> None:
        """With several of these threads, downloads of one job don't keep the next one waiting."""
        while (job := self._popped.get()) is not None:
            self._take_in(job)

    def _take_in(self, job: Job) -> None:
        """What can't be served is faulted at once, and its place is free again."""
        self._being_read[job.ids[0]] = job
        taken: Work | Fault
        try:
            taken = self._intake.take_in(job)
        except Exception as error:  # noqa: BLE001 - the job boundary
            taken = Fault(job, _reason(error))
        if self._being_read.pop(job.ids[0], None) is None:
            return  # it was given back meanwhile
        if isinstance(taken, Work):
            self._board.understood(job.ids[0], taken.params)
            self._waiting.put(taken)
        else:
            self._finished.put(taken)
            self._places.release()

    def _give_back(self, job_id: str) -> None:
        job = self._being_read.pop(job_id, None)
        if job is not None:
            self._finished.put(Fault(job, STOPPING))

    # ---- run -------------------------------------------------------------------------------

    def _run_jobs(self) -> None:
        """Feeds the engine, job after job. Ends when the popper has, and nothing waits."""
        try:
            self._introduced.wait()
            self._start_children()
            self._engine_ready.set()
            while (work := self._waiting.get()) is not None:
                self._finished.put(self._run(work))
                self._places.release()
        finally:
            self._engine.stop()
            self._end_of_results()

    def _start_children(self) -> None:
        self._start_engine()
        if not self._stopping.is_set():
            self._judging.start()

    def _end_of_results(self) -> None:
        for _ in self._deliverers:
            self._finished.put(None)
        for deliverer in self._deliverers:
            deliverer.join()
        self._judging.stop()

    def _run(self, work: Work) -> Done | Fault:
        """Run one job; an engine that dies under it is replaced, and the job gets one more try."""
        job_id = work.job.ids[0]
        reason = STOPPING
        for _ in range(2):
            if self._stopping.is_set():
                break
            self._board.running(job_id)
            try:
                return Done(work, self._generate(work))
            except (ModelBroken, ModelMissing) as error:
                self._withdraw(work.job.model, error)
                return Fault(work.job, str(error))
            except EngineError as error:
                if not self._hurry.is_set():
                    reason = str(error)
                    log.error("job %s: %s; a new engine tries it again", job_id, error)
                self._start_engine()
            except Exception as error:  # noqa: BLE001 - the job boundary
                return Fault(work.job, _reason(error))
        return Fault(work.job, reason)

    def _withdraw(self, model: str, error: JobError) -> None:
        """Offer a model no more whose file can't be used: every job for it would fail."""
        log.error("%s is not offered any more: %s", model, error)
        if not self._intake.withdraw(model):
            self._fail(NothingToServe(f"no model is left to serve: {error}"))

    def _generate(self, work: Work) -> Generation:
        job_id = work.job.ids[0]
        return self._engine.generate(
            work.params,
            work.model,
            lambda done, total: self._board.stepped(job_id, done, total),
        )

    def _start_engine(self) -> None:
        """A running engine, unless the bridge stops; it does after `engine_tries` failed starts."""
        backoff = Backoff(2, 30)
        for tries_left in reversed(range(self._pace.engine_tries)):
            if self._stopping.is_set():
                return
            try:
                log.info("engine ready on %s", self._engine.start())
            except EngineError as error:
                if self._stopping.is_set():
                    return
                log.error("the engine did not start: %s", error)
                if not tries_left:
                    self._fail(EngineUnusable(str(error)))
                self._stopping.wait(backoff.delay())
            else:
                return

    # ---- judge → deliver -------------------------------------------------------------------

    def _deliver_jobs(self) -> None:
        """Takes results as they come; with several of these threads, uploads overlap."""
        delivery = Delivery(self._horde, self._hurry)
        while (result := self._finished.get()) is not None:
            try:
                ends = self._end(delivery, result)
            except Exception as error:  # noqa: BLE001 - the job boundary
                ends = delivery.fault(result.job.ids, _reason(error), result.job.over_at)
            self._intake.let_go(result.job)
            self._fault_guard.count(sum(end.is_drop for end in ends))
            self._board.over(result.job.ids[0], ends)

    def _end(self, delivery: Delivery, result: Done | Fault) -> list[ImageEnd]:
        job_id = result.job.ids[0]
        match result:
            case Done(work, generation):
                self._board.generated(job_id, generation.load_seconds + generation.run_seconds)
                return delivery.deliver(work.job, self._judging.judge(work, generation))
            case Fault(job, reason):
                ends = delivery.fault(job.ids, reason, job.over_at)
                log.warning("job %s faulted: %s", job_id, reason)
                return ends


def _reason(error: Exception) -> str:
    """Why a job is faulted. What is no JobError is a bug of ours: the log gets all of it."""
    if isinstance(error, JobError):
        return str(error)
    log.error("a bug of ours failed a job", exc_info=error)
    return f"internal error: {type(error).__name__}: {error}"
