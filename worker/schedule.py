"""Which of the waiting jobs run next, and which of them together."""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence

from hordelib.params import MOST_IMAGES
from hordelib.sharing import Member, share_key
from worker.intake import Work

Fits = Callable[[Sequence[Work]], bool]


def company_of(lead: Work, waiting: Sequence[Work], fits: Fits) -> list[Work]:
    """The lead, and those of the waiting jobs that share its batch, in their order.

    `fits` says of a batch whether all of its jobs would be done in time. The lead is always the job
    that has waited longest, and nobody is waited for: so no job is held back, and none is passed by
    more than one batch for each that came before it.
    """
    batch = [lead]
    key = share_key(lead.params, lead.model.family)
    for work in waiting if key is not None else ():
        agrees = work.model == lead.model and share_key(work.params, work.model.family) == key
        if agrees and _images([*batch, work]) <= MOST_IMAGES and fits([*batch, work]):
            batch.append(work)
    return batch


def members_of(batch: Sequence[Work]) -> list[Member]:
    return [Member(work.job.id, work.params) for work in batch]


def _images(batch: Sequence[Work]) -> int:
    return sum(work.params.images for work in batch)


class Line:
    """Jobs that wait for the device, the oldest first. Any thread adds, one takes."""

    def __init__(self) -> None:
        self._arrivals: queue.Queue[Work | None] = queue.Queue()
        self._waiting: list[Work] = []
        self._is_closed = False

    def add(self, work: Work) -> None:
        self._arrivals.put(work)

    def close(self) -> None:
        """No more will be added."""
        self._arrivals.put(None)

    def take(self, fits: Fits, timeout: float) -> list[Work]:
        """The next batch; [] after the last one.

        Raises queue.Empty when there is none within `timeout` seconds.
        """
        self._receive_all()
        if not self._waiting and not self._is_closed:
            self._receive(self._arrivals.get(timeout=timeout))
            self._receive_all()
        if not self._waiting:
            return []
        batch = company_of(self._waiting[0], self._waiting[1:], fits)
        self._waiting = [work for work in self._waiting if work not in batch]
        return batch

    def rest(self) -> list[Work]:
        """What was not taken, once nobody takes any more."""
        self._receive_all()
        rest, self._waiting = self._waiting, []
        return rest

    def _receive_all(self) -> None:
        try:
            while True:
                self._receive(self._arrivals.get_nowait())
        except queue.Empty:
            return

    def _receive(self, arrival: Work | None) -> None:
        if arrival is None:
            self._is_closed = True
        else:
            self._waiting.append(arrival)
