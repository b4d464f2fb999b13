"""The worker's books: what happens to a job is told to the ledger, the board and the fault guard.

The ledger keeps it over the worker's death, the board shows it, the guard counts what failed.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from hordelib.job.params import GenerationParams
from worker.horde.api import Job, Offer, Slot
from worker.jobs.drop_limit import MOST_DROPS, FaultGuard
from worker.jobs.ledger import LOST_POPS, Ledger
from worker.jobs.results import Failed, ImageEnd, Made, Results
from worker.jobs.status import Board, JobRow
from worker.prediction.predictor import SecondsPredictor


class Books:
    """Any thread may write.

    Args:
        most_drops: images that may fail within an hour.
        forecast: learns from the jobs; None knows nothing yet.
    """

    def __init__(
        self,
        ledger: Ledger,
        board: Board,
        most_drops: int = MOST_DROPS,
        forecast: SecondsPredictor | None = None,
    ):
        self.board = board
        self.forecast = forecast or SecondsPredictor()
        self.guard = FaultGuard(most_drops, ledger.drop_ages(), ledger.stop_ages())
        self._ledger = ledger
        self._changed = threading.Condition()
        self._open: dict[str, frozenset[str]] = {}  # the ids of each job that is not over

    @property
    def in_hand(self) -> int:
        """Images that were popped and are not over."""
        with self._changed:
            return self._images()

    def wait_for_fewer(self, images: int, seconds: float) -> None:
        """Until fewer than so many are in hand, but no longer than `seconds`."""
        with self._changed:
            self._changed.wait_for(lambda: self._images() < images, seconds)

    def cautious(self, offer: Offer) -> Offer:
        """The offer with no more than may be asked for; no images at all if its amount is 0."""
        return self.guard.cautious(offer, self.in_hand)

    def lost_pop(self, *, may_be_drop: bool) -> None:
        """The horde may have handed out a job in an answer that never came. It can't be known.

        `may_be_drop`: it is the first after one that came, so likely enough that it counts as a
        drop; in an outage, none of many comes.
        """
        self._ledger.count(LOST_POPS)
        if may_be_drop:
            self.guard.count(1)
        self.board.lost_pop()

    def fresh(self, ids: Sequence[str]) -> tuple[str, ...]:
        """Of ids that were popped just now those that are new, each once.

        The horde never hands an id out twice: one that it gives up gets another one. Whatever goes
        by ids relies on that.
        """
        known = set(self._ledger.known(ids))
        with self._changed:
            known.update(*self._open.values())
        return tuple(id for id in dict.fromkeys(ids) if id not in known)

    def owed(self) -> list[Job | Results]:
        """What an earlier life of the worker has left: to be made again, delivered or faulted."""
        debts = self._ledger.owed()
        for debt in debts:
            ids = [image.slot.id for image in debt.results.images]
            self._enter(debt.results.job_id, debt.model, ids)
        return [debt.job or debt.results for debt in debts]

    def popped(self, slots: Sequence[Slot], model: str, asked: str = "") -> None:
        """The first thing to be done with a job, whose ids have to be `fresh`.

        `asked` (Job.asked) is what the next life makes it of, if this one does not live to see it.
        """
        self._ledger.popped(slots, model, asked)
        self._enter(slots[0].id, model, [slot.id for slot in slots])

    def understood(self, job_id: str, params: GenerationParams) -> None:
        self.board.understood(job_id, params)

    def made(self, results: Results, seconds: float) -> None:
        """Its pictures took so long on the device; from here on they survive the worker."""
        self.board.generated(results.job_id, seconds)
        self._ledger.made([image for image in results.images if isinstance(image, Made)])

    def failed(self, image: Failed) -> None:
        """Before the horde is told: a later life of the worker tells it the same."""
        self._ledger.failed(image)

    def ended(self, image_id: str, end: ImageEnd) -> None:
        self._ledger.ended(image_id, end)

    def over(self, job_id: str, ends: Sequence[ImageEnd]) -> None:
        """No image of the job is in hand any more; those without an end are the next life's."""
        with self._changed:
            if self._open.pop(job_id, None) is None:
                return
            self.guard.count(sum(end.is_drop for end in ends))  # before anybody pops again
            self._changed.notify_all()
        self.board.over(job_id, ends)

    def tend(self) -> None:
        """To be called often: keeps the ledger small and on the disk."""
        self._ledger.tend()

    def _images(self) -> int:
        return sum(map(len, self._open.values()))

    def _enter(self, job_id: str, model: str, ids: Sequence[str]) -> None:
        with self._changed:
            self._open[job_id] = frozenset(ids)
        self.board.add(JobRow(job_id, model, len(ids)))
