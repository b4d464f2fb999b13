"""The worker's books: what happens to a job is told to the ledger, the board and the fault guard.

The ledger keeps it over the worker's death, the board shows it, the guard counts what failed.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from hordelib.params import GenerationParams
from worker.board import Board, JobRow
from worker.fault_guard import MOST_DROPS, FaultGuard
from worker.ledger import LOST_POPS, Ledger
from worker.results import Failed, ImageEnd, Made, Results
from worker.seconds_predictor import SecondsPredictor
from worker.wire import Offer, Slot


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
        self.guard = FaultGuard(most_drops, ledger.drop_ages())
        self._ledger = ledger
        self._changed = threading.Condition()
        self._open: dict[str, int] = {}  # images of each job that is not over

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

    def owed(self) -> list[Results]:
        """What an earlier life of the worker has left to be delivered or faulted."""
        debts = self._ledger.owed()
        for debt in debts:
            self._enter(debt.results.job_id, debt.model, len(debt.results.images))
        return [debt.results for debt in debts]

    def popped(self, slots: Sequence[Slot], model: str) -> None:
        """The first thing to be done with a job."""
        self._ledger.popped(slots, model)
        self._enter(slots[0].id, model, len(slots))

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
        self.guard.count(sum(end.is_drop for end in ends))
        with self._changed:
            self._open.pop(job_id)
            self._changed.notify_all()
        self.board.over(job_id, ends)

    def tend(self) -> None:
        """To be called often: keeps the ledger small and on the disk."""
        self._ledger.tend()

    def _images(self) -> int:
        return sum(self._open.values())

    def _enter(self, job_id: str, model: str, images: int) -> None:
        with self._changed:
            self._open[job_id] = images
        self.board.add(JobRow(job_id, model, images))
