"""Which of the waiting jobs run next, and which of them together."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Self

from hordelib.job.batching import Member, share_key
from hordelib.job.params import MOST_IMAGES
from worker.jobs.work import Work


@dataclass(frozen=True, slots=True)
class Wake:
    """No job: only to end a wait."""


Fits = Callable[[Sequence[Work]], bool]


@dataclass(frozen=True, slots=True)
class Waiting:
    """A job that waits, and what those have in common that may share its batch; None: none may.

    It is found out once: with a long queue, a job is compared with many others.
    """

    work: Work
    common: Hashable

    @classmethod
    def of(cls, work: Work) -> Self:
        key = share_key(work.params, work.model.family)
        # Numbers first: nearly all pairs differ in them, and they are compared at once.
        return cls(work, None if key is None else (hash(key), key, work.model))


def batch_for(lead: Waiting, waiting: Sequence[Waiting], fits: Fits) -> list[Work]:
    """The lead, and those of the waiting jobs that share its batch, in their order.

    `fits` says of a batch whether all of its jobs would be done in time. The lead is always the job
    that has waited longest, and nobody is waited for: so no job is held back, and none is passed by
    more than one batch for each that came before it.
    """
    batch = [lead.work]
    for each in waiting if lead.common is not None else ():
        if each.common != lead.common:
            continue
        larger = [*batch, each.work]
        if _images(larger) <= MOST_IMAGES and fits(larger):
            batch = larger
    return batch


def members_of(batch: Sequence[Work]) -> list[Member]:
    return [Member(work.job.id, work.params) for work in batch]


def _images(batch: Sequence[Work]) -> int:
    return sum(work.params.images for work in batch)


class WaitingJobs:
    """Jobs that wait for the device, the oldest first. Any thread adds, one takes batches."""

    def __init__(self) -> None:
        self._arrivals: queue.Queue[Work | Wake | None] = queue.Queue()
        self._waiting: list[Waiting] = []
        self._is_closed = False
        self._lock = threading.Lock()  # of what waits

    def add(self, work: Work) -> None:
        self._arrivals.put(work)

    def wake(self) -> None:
        """Whoever waits in `take` looks for something else to do."""
        self._arrivals.put(Wake())

    def close(self) -> None:
        """No more will be added."""
        self._arrivals.put(None)

    def take(self, fits: Fits, timeout: float) -> list[Work]:
        """The next batch; [] after the last one.

        Raises queue.Empty when there is none within `timeout` seconds, and after `wake`.
        """
        with self._lock:
            self._receive_all()
            is_empty = not self._waiting and not self._is_closed
        arrivals = [self._arrivals.get(timeout=timeout)] if is_empty else []
        with self._lock:
            for arrival in arrivals:
                self._receive(arrival)
            self._receive_all()
            if not self._waiting:
                if not self._is_closed:
                    raise queue.Empty
                return []
            batch = batch_for(self._waiting[0], self._waiting[1:], fits)
            self._remove(batch)
            return batch

    def take_out(self, chosen: Callable[[Sequence[Work]], Sequence[Work]]) -> list[Work]:
        """Those of all that wait which `chosen` gives; from any thread."""
        with self._lock:
            self._receive_all()
            out = list(chosen([each.work for each in self._waiting]))
            self._remove(out)
            return out

    def rest(self) -> list[Work]:
        """What was not taken, once nobody takes any more."""
        return self.take_out(lambda waiting: waiting)

    def _remove(self, works: Sequence[Work]) -> None:
        taken = {work.job.id for work in works}
        self._waiting = [each for each in self._waiting if each.work.job.id not in taken]

    def _receive_all(self) -> None:
        try:
            while True:
                self._receive(self._arrivals.get_nowait())
        except queue.Empty:
            return

    def _receive(self, arrival: Work | Wake | None) -> None:
        if arrival is None:
            self._is_closed = True
        elif isinstance(arrival, Work):
            self._waiting.append(Waiting.of(arrival))
