"""The loop of a kind of work beside pictures: popped, done, and each submitted once.

It runs beside the line of pictures, with a name, a journal and counts of its own, on the same horde
client and ledger. What is particular to the kind is its trade.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Generic, Protocol, TypeVar

from worker.backoff import Backoff
from worker.clock import elapsed_seconds
from worker.errors import (
    CantServeNow,
    HordeError,
    HordeOnHold,
    HordeUnreachable,
    NotAllowed,
)
from worker.horde.api import Slot, slots_of
from worker.horde.client import HordeClient, OtherSubmission
from worker.horde.kinds import Kind, PoppedTasks
from worker.jobs.journal import Journal
from worker.jobs.results import STOPPING, Failed, JobStage, Results, Solved, fault_reason
from worker.jobs.status import Obstacle, ObstacleKind, StatusView
from worker.line.delivery import Delivery, Untold
from worker.line.gaps import PictureLine
from worker.line.popper import insist_on_own_name
from worker.line.trouble import Trouble

log = logging.getLogger(__name__)

IDLE_SECONDS = (1.0, 4.0)  # between two empty pops: the first, the longest
TROUBLE_SECONDS = (1.0, 60.0)
UNREAD_SECONDS = 60.0  # for telling the horde of what could not be read
LOOK_SECONDS = 0.5


class Task(Protocol):
    """One popped id of another kind of work, and what is to be done for it."""

    @property
    def id(self) -> str: ...

    @property
    def label(self) -> str:
        """What its owner sees: the form, or the model."""
        ...

    @property
    def slots(self) -> tuple[Slot, ...]: ...

    @property
    def asked(self) -> str: ...


AnyTask = TypeVar("AnyTask", bound=Task)


class Trade(Protocol[AnyTask]):
    """What one kind of work has of its own. `outcome` is called by several threads."""

    kind: Kind
    name: str  # of its worker at the horde
    at_once: int  # tasks in hand, at most
    lanes: int  # tasks done at the same time
    hurry: threading.Event  # nothing is waited for any more
    at_pause: str  # what a pause leaves as it is, for the owner; "" for nothing

    @property
    def room(self) -> int:
        """For how many there has to be room until more are popped."""
        ...

    def pop(self, line: PictureLine, amount: int) -> PoppedTasks[AnyTask] | None:
        """None where nothing is offered for a moment, which nobody has to know.

        Raises CantServeNow with what its owner should know, and what a pop raises.
        """
        ...

    def outcome(self, task: AnyTask, line: PictureLine, delivery: Delivery) -> Solved | Failed:
        """Raises a JobError, or WorkerError, where there is no result."""
        ...

    def submission(self, label: str, outcome: Solved | Failed) -> OtherSubmission: ...

    def owed(self, debt: object) -> AnyTask | None:
        """What an earlier life has left, where it is a task of this kind."""
        ...

    def stop(self) -> None: ...

    def kill(self) -> None: ...


class Companion(Generic[AnyTask]):
    """Serves a trade until it is told to stop. A refusal of its name ends it, and no picture."""

    def __init__(self, trade: Trade[AnyTask], horde: HordeClient, journal: Journal):
        self._trade = trade
        self._horde = horde
        self._journal = journal
        self._stopping = threading.Event()
        self._was_paused = False
        self._delivery = Delivery(horde, trade.hurry)
        self._idle = Backoff(*IDLE_SECONDS)
        self._trouble_delay = Backoff(*TROUBLE_SECONDS)
        what = f"pops of {trade.kind}s failing"
        self._trouble = Trouble(what, log, over=f"{trade.kind}s are popped again")
        self._thread: threading.Thread | None = None

    @property
    def kind(self) -> Kind:
        return self._trade.kind

    @property
    def name(self) -> str:
        return self._trade.name

    def start(self, line: PictureLine) -> None:
        self._thread = threading.Thread(
            target=self._serve, args=(line,), name=self.kind.served_by, daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Take nothing more; what is in hand is finished."""
        self._stopping.set()
        self._journal.wake()

    def abandon(self) -> None:
        """Wait for nothing any more: what is not done is faulted."""
        self._stopping.set()  # first: what is faulted now would be popped again
        self._trade.hurry.set()
        self.stop()
        self._trade.kill()

    def join(self, seconds: float) -> bool:
        """Wait for its end so long; whether it has ended."""
        if self._thread is not None:
            self._thread.join(seconds)
        return self._thread is None or not self._thread.is_alive()

    def view(self) -> StatusView:
        return self._journal.view()

    @property
    def in_hand(self) -> int:
        """Tasks that were popped and have not ended."""
        return self._journal.in_hand

    def _serve(self, line: PictureLine) -> None:
        """The thread's outermost frame: what ends this ends no pictures, and is told."""
        try:
            while not line.is_ready and not self._stopping.is_set():
                self._stopping.wait(LOOK_SECONDS)
            with ThreadPoolExecutor(self._trade.lanes, self.kind.value) as lanes:
                self._settle_debts(line, lanes)
                self._introduce()
                while not self._stopping.is_set():
                    self._once(line, lanes)
        except NotAllowed as error:
            remedy = self.kind.in_its_keys(error.remedy)
            self._end(f"no {self.kind}s any more: {error}. Remedy: {remedy}")
        except Exception as error:
            log.exception("a bug of ours ended the %s", self.kind.served_by)
            self._end(f"no {self.kind}s any more: internal error: {error}")
        finally:
            self._trade.stop()

    def _end(self, why: str) -> None:
        log.error("%s", why)
        self._journal.say(Obstacle(why, ObstacleKind.trouble))

    def _introduce(self) -> None:
        """See that the name is nobody else's. Raises NotAllowed."""
        while not self._stopping.is_set():
            try:
                account = self._horde.whoami()
                record = self._horde.worker_by_name(self.name, account)
                insist_on_own_name(account, record, self.kind)
                log.info("%s %r is introduced", self.kind.served_by, self.name)
                return
            except NotAllowed:
                raise
            except HordeError as error:
                self._when_failed(error)

    def _settle_debts(self, line: PictureLine, lanes: ThreadPoolExecutor) -> None:
        """What an earlier life has left: handed in, done again where there is time, or faulted."""
        debts = self._journal.owed()
        for debt in debts:
            if isinstance(debt, Solved):
                self._submit(debt)
            elif isinstance(debt, Results):
                for image in debt.images:
                    failed = image if isinstance(image, Failed) else Failed(image.slot, STOPPING)
                    self._submit(failed)
        self._begin_all(list(filter(None, map(self._trade.owed, debts))), line, lanes)

    def _once(self, line: PictureLine, lanes: ThreadPoolExecutor) -> None:
        """One pop, and the beginning of all that comes of it."""
        self._journal.wait_for(lambda: self._stopping.is_set() or self._has_room())
        if self._stopping.is_set():
            return
        if line.is_paused:
            self._journal.say(Obstacle(self._trade.at_pause, ObstacleKind.paused))
            self._was_paused = True
            self._stopping.wait(LOOK_SECONDS)
            return
        if self._was_paused:
            self._journal.say(Obstacle())
            self._was_paused = False
        amount = self._amount()
        if not amount:
            return
        try:
            popped = self._trade.pop(line, amount)
        except NotAllowed:
            raise
        except CantServeNow as error:
            self._tell_trouble(str(error))
            return
        except HordeError as error:
            self._when_failed(error)
            return
        if popped is None:
            self._wait_for_more()
            return
        self._trouble.over()
        self._trouble_delay.reset()
        self._journal.say(Obstacle())
        fresh = self._taken(popped)
        if not fresh:
            self._wait_for_more()
            return
        self._idle.reset()
        self._begin_all(fresh, line, lanes)

    def _wait_for_more(self) -> None:
        """After a pop that gave nothing: until it is time for another, or something in hand ends,
        which may be what others have waited for."""
        in_hand = self._journal.in_hand
        self._journal.wait_for(
            lambda: self._stopping.is_set() or self._journal.in_hand < in_hand, self._idle.delay()
        )

    def _has_room(self) -> bool:
        return self._trade.at_once - self._journal.in_hand >= self._trade.room

    def _amount(self) -> int:
        """How many may be popped now; 0, after a wait, where so many have failed within the hour,
        or could, that the horde would take one more amiss."""
        in_hand, limit = self._journal.in_hand, self._journal.drop_limit
        if amount := min(self._trade.at_once - in_hand, limit.allowance(in_hand)):
            return max(0, amount)
        if in_hand:
            self._journal.wait_for(lambda: self._journal.in_hand < in_hand, LOOK_SECONDS)
        elif seconds := limit.wait_seconds():
            told = (
                f"too many {self.kind}s failed within the last hour: asking for no more for"
                f" {seconds / 60:.0f} minutes, before the horde sets this worker to maintenance;"
                " see the log for the reasons"
            )
            log.warning(told)
            self._journal.say(Obstacle(told, ObstacleKind.trouble))
            self._stopping.wait(seconds)
        return 0

    def _taken(self, popped: PoppedTasks[AnyTask]) -> list[AnyTask]:
        """Each id once, and none that was handed out before. What can't be read is faulted."""
        for id, why in popped.unusable.items():
            if self._journal.fresh([id]):
                slots = slots_of((id,), ("",), elapsed_seconds() + UNREAD_SECONDS)
                self._journal.popped(slots, "")
                self._submit(Failed(slots[0], why))
        by_id = {task.id: task for task in reversed(popped.tasks)}
        fresh = [by_id[id] for id in self._journal.fresh([task.id for task in popped.tasks])]
        if len(fresh) < len(popped.tasks):
            told = "the horde has handed out a %s twice: dropped"
            log.warning(told, self.kind)
        for number, task in enumerate(fresh):  # of more than was asked for, only the ids are kept
            asked = task.asked if number < self._trade.at_once else ""
            self._journal.popped(task.slots, task.label, asked)
        return fresh

    def _when_failed(self, error: HordeError) -> None:
        if isinstance(error, HordeOnHold):
            kind = ObstacleKind.maintenance if error.rc == "WorkerMaintenance" else None
            self._journal.say(Obstacle(f"on hold: {error}", kind or ObstacleKind.trouble))
            self._stopping.wait(error.retry_after_seconds)
            return
        if isinstance(error, HordeUnreachable) and error.may_have_worked:
            self._journal.lost_pop(may_be_drop=False)
        self._tell_trouble(f"{self.kind}s can't be popped, trying again and again: {error}")

    def _tell_trouble(self, line: str) -> None:
        self._trouble.failed(line)
        self._journal.say(Obstacle(line, ObstacleKind.trouble))
        self._stopping.wait(self._trouble_delay.delay())

    def _begin_all(
        self, tasks: Sequence[AnyTask], line: PictureLine, lanes: ThreadPoolExecutor
    ) -> None:
        for task in tasks:
            lanes.submit(self._guarded, task, line)

    def _guarded(self, task: AnyTask, line: PictureLine) -> None:
        try:
            self._do(task, line)
        except Exception:
            log.exception("a bug of ours: %s %s has no end", self.kind, task.id)

    def _do(self, task: AnyTask, line: PictureLine) -> None:
        self._journal.move(task.id, JobStage.running)
        try:
            outcome = self._trade.outcome(task, line, self._delivery)
        except Exception as error:  # noqa: BLE001 - the task's boundary
            outcome = Failed(task.slots[0], fault_reason(error))
        self._submit(outcome)

    def _submit(self, outcome: Solved | Failed) -> None:
        """Each task ends here, once; without an end where that of the worker comes first."""
        end, id = None, outcome.slot.id
        label = next(each.model for each in self._journal.jobs() if each.job_id == id)
        try:
            match outcome:
                case Solved():
                    self._journal.solved(outcome)
                case Failed():
                    self._journal.failed(outcome)
            self._journal.move(id, JobStage.delivering)
            with suppress(Untold):
                end = self._delivery.submit_task(
                    outcome, lambda outcome: self._trade.submission(label, outcome)
                )
        finally:
            self._journal.ended(id, id, end)
