"""Where each job in hand is: one dictionary, which all threads of the line write through `Journal`.

A job is in it from its pop until its last image has ended. What has to outlive the worker is
written to the ledger in the same call, and images that failed are counted for the drop limit.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from hordelib.job.params import GenerationParams
from worker.horde.api import HordeMessage, Offer, Slot
from worker.horde.kinds import Kind
from worker.jobs.drop_limit import MOST_DROPS, DropLimit
from worker.jobs.ledger import Ledger
from worker.jobs.owed import Asked
from worker.jobs.results import (
    GIVEN_BACK,
    UNMADE,
    Failed,
    ImageEnd,
    JobStage,
    Made,
    Results,
    Solved,
)
from worker.jobs.status import JobRow, Obstacle, Status, StatusView
from worker.jobs.timeline import Timeline
from worker.jobs.totals import LOST_POPS
from worker.prediction.predictor import SecondsPredictor


class Journal:
    """Any thread may write and read.

    Args:
        kind: of work; each kind has a journal of its own, and all share the ledger.
        most_drops: images that may fail within an hour.
        predictor: learns from the jobs; None knows nothing yet.

    `on_over` is told the id of each job of which no image is in hand any more, before it is gone.
    """

    def __init__(
        self,
        ledger: Ledger,
        most_drops: int = MOST_DROPS,
        predictor: SecondsPredictor | None = None,
        kind: Kind = Kind.image,
    ):
        self._kind = kind
        self._most_drops = most_drops
        self.predictor = predictor or SecondsPredictor()
        self.drop_limit = DropLimit(most_drops, ledger.drop_ages(kind), ledger.stop_ages(kind))
        self.timeline = Timeline()
        self.on_over: Callable[[str], None] = lambda _: None
        self._ledger = ledger
        self._status = Status()
        self._changed = threading.Condition()
        self._jobs: dict[str, JobRow] = {}
        self._others: dict[Kind, Journal] = {}

    def of(self, kind: Kind) -> Journal:
        """A journal of another kind of work in the same ledger."""
        self._others[kind] = Journal(self._ledger, self._most_drops, kind=kind)
        return self._others[kind]

    # ---- the way of a job --------------------------------------------------------------------

    def owed(self) -> list[Asked | Results | Solved]:
        """What an earlier life of the worker has left: to be made again, delivered or faulted."""
        debts = self._ledger.owed(self._kind)
        for debt in debts:
            self._enter(debt.results.job_id, debt.model, debt.slots)
        return [debt.job or debt.solved or debt.results for debt in debts]

    def popped(self, slots: Sequence[Slot], model: str, asked: str = "") -> None:
        """The first thing to be done with a job, whose ids have to be `fresh`.

        `asked` (Job.asked) is what the next life makes it of, if this one does not live to see it.
        """
        self._ledger.popped(slots, model, asked, self._kind)
        self._enter(slots[0].id, model, slots)

    def move(self, job_id: str, to: JobStage, of: Collection[JobStage] = tuple(JobStage)) -> bool:
        """It is at that stage now; False, and nothing done, where it is at none `of` these.

        So of several threads that would take a job over, one does.
        """
        with self._changed:
            row = self._jobs.get(job_id)
            if row is None or row.stage not in of:
                return False
            self._change(job_id, stage=to)
            self._changed.notify_all()
            return True

    def understood(self, job_id: str, params: GenerationParams, own_seconds: float) -> None:
        self._change(job_id, params=params, own_seconds=own_seconds)

    def expected(self, job_id: str, seconds: float, kudos: float, device: str = "") -> None:
        """What it takes on this device, with those that share its batch, and brings."""
        self._change(job_id, expected_seconds=seconds, expected_kudos=kudos, device=device)

    def stepped(self, job_id: str, step: int, steps: int) -> None:
        self._change(job_id, step=step, steps=steps)

    def made(self, results: Results, seconds: float) -> None:
        """Its pictures took so long on the device; from here on they survive the worker."""
        self._change(results.job_id, seconds=seconds)
        self._ledger.made([image for image in results.images if isinstance(image, Made)])

    def solved(self, task: Solved) -> None:
        """A form or a text is done; from here on its result survives the worker."""
        self._ledger.solved(task)

    def failed(self, image: Failed) -> None:
        """Before the horde is told: a later life of the worker tells it the same."""
        self._ledger.failed(image)

    def ended(self, job_id: str, image_id: str, end: ImageEnd | None) -> None:
        """One image is not in hand any more; without an end, it is left to the next life."""
        if end is not None:
            self._ledger.ended(image_id, end)
        with self._changed:
            row = self._jobs.get(job_id)
            if row is None or image_id not in row.left:
                return
            ends = row.ends if end is None else (*row.ends, end)
            left = row.left - {image_id}
            self._change(job_id, left=left, ends=ends)
            if end is not None and end.is_drop:
                are_stops = end.reason in GIVEN_BACK
                self.drop_limit.count(1, are_stops=are_stops)  # before anybody pops again
            self._changed.notify_all()
        if not left:
            self._let_go(job_id)

    def leave(self, job_id: str) -> None:
        """Its next stages are those of the worker's next life."""
        self._let_go(job_id)

    # ---- what is in hand ---------------------------------------------------------------------

    def jobs(self) -> tuple[JobRow, ...]:
        """All that are in hand, oldest first."""
        with self._changed:
            return tuple(self._jobs.values())

    def unmade(self) -> list[JobRow]:
        """Those of them that still need a device, or are at work there."""
        return [row for row in self.jobs() if row.stage in UNMADE]

    @property
    def in_hand(self) -> int:
        """Images that were popped and have not ended."""
        return sum(len(row.left) for row in self.jobs())

    def wait_for(self, condition: Callable[[], bool], seconds: float | None = None) -> None:
        """Until it holds, which is looked at after each change, but no longer than `seconds`."""
        with self._changed:
            self._changed.wait_for(condition, seconds)

    def wake(self) -> None:
        """Whoever waits looks again: something has changed that is not written here."""
        with self._changed:
            self._changed.notify_all()

    def fresh(self, ids: Sequence[str]) -> tuple[str, ...]:
        """Of ids that were popped just now those that are new, each once.

        The horde never hands out the id of an image or a text twice: one that it gives up gets
        another one. Whatever goes by ids relies on that. A form that failed comes again under its
        id, and is new then.
        """
        in_hand = {slot.id for row in self.jobs() for slot in row.slots}
        known = in_hand | self._ledger.known(ids, self._kind)
        return tuple(id for id in dict.fromkeys(ids) if id not in known)

    def cautious(self, offer: Offer) -> Offer:
        """The offer with no more than may be asked for; no images at all if its amount is 0."""
        return self.drop_limit.cautious(offer, self.in_hand)

    # ---- how the worker is -------------------------------------------------------------------

    def lost_pop(self, *, may_be_drop: bool) -> None:
        """The horde may have handed out a job in an answer that never came. It can't be known.

        `may_be_drop`: it is the first after one that came, so likely enough that it counts as a
        drop; in an outage, none of many comes.
        """
        self._ledger.count(LOST_POPS)
        if may_be_drop:
            self.drop_limit.count(1)
        with self._changed:
            self._status.lost_pops += 1

    @property
    def obstacle(self) -> Obstacle:
        return self._status.obstacle

    def say(self, obstacle: Obstacle) -> None:
        """What keeps the worker from jobs now."""
        self._status.obstacle = obstacle

    def hear(self, messages: tuple[HordeMessage, ...]) -> None:
        """What the horde's moderators write to this worker now, instead of what they wrote."""
        self._status.messages = messages

    def silent(self, seconds: float) -> None:
        """The engine has not said a word for so long; 0 when it has."""
        self._status.silent_seconds = seconds

    def view(self) -> StatusView:
        with self._changed:
            return self._status.view(self.jobs())

    def views_beside(self) -> tuple[tuple[Kind, StatusView], ...]:
        """The same of each other kind of work that is served."""
        return tuple((kind, other.view()) for kind, other in self._others.items())

    def tend(self) -> None:
        """To be called often: keeps the ledger small and on the disk."""
        self._ledger.tend()

    def _enter(self, job_id: str, model: str, slots: Sequence[Slot]) -> None:
        left = frozenset(slot.id for slot in slots)
        with self._changed:
            self._jobs[job_id] = JobRow(job_id, model, tuple(slots), left)

    def _change(self, job_id: str, **changes: object) -> None:
        """What is said of a job that is over comes too late."""
        with self._changed:
            if row := self._jobs.get(job_id):
                self._jobs[job_id] = replace(row, **changes)  # pyright: ignore[reportArgumentType]

    def _let_go(self, job_id: str) -> None:
        self.on_over(job_id)
        with self._changed:
            row = self._jobs.pop(job_id, None)
            if row is not None and (end := row.best_end):
                self._status.over(replace(row, stage=end.stage))
            self._changed.notify_all()
