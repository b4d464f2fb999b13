"""The jobs that wait for a device, and which of them may share a batch."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Self

from hordelib.job.batching import Member, share_key
from hordelib.job.params import MOST_IMAGES
from worker.jobs.work import Work

Fits = Callable[[Sequence[Work]], bool]


@dataclass(slots=True)
class Waiting:
    """A job that waits, and what those have in common that may share its batch; None: none may.

    It is found out once: with a long queue, a job is compared with many others.
    """

    work: Work
    common: Hashable
    passed_at: float = inf
    """When a device that had nothing to do left it to another one first (elapsed_seconds())."""

    @classmethod
    def of(cls, work: Work) -> Self:
        key = share_key(work.params, work.model.family)
        # Numbers first: nearly all pairs differ in them, and they are compared at once.
        return cls(work, None if key is None else (hash(key), key, work.model))


Choose = Callable[[Sequence[Waiting]], Sequence[Work]]


def batch_for(lead: Waiting, waiting: Sequence[Waiting], fits: Fits) -> list[Work]:
    """The lead, and those of the waiting jobs that share its batch, in their order.

    `fits` says of a batch whether all of its jobs would be done in time. Nobody is waited for: a
    job is passed by no more than one batch for each that came before it.
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
    """Jobs that wait for a device, the oldest first. Any thread adds, and each device's takes."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: list[Waiting] = []
        self._is_closed = False

    def add(self, work: Work) -> None:
        waiting = Waiting.of(work)
        with self._changed:
            self._waiting.append(waiting)
            self._changed.notify_all()

    def wake(self) -> None:
        """Whoever waits in `take` looks for something else to do."""
        with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        """No more will be popped."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def take(self, choose: Choose, timeout: float) -> list[Work]:
        """What `choose` takes of all that wait; [] after the last one.

        Raises queue.Empty when it takes nothing, now and after the next change, for which no more
        than `timeout` seconds are waited.
        """
        with self._changed:
            if not (batch := self._chosen(choose)) and not self._is_over:
                self._changed.wait(timeout)
                batch = self._chosen(choose)
            if not batch and not self._is_over:
                raise queue.Empty
            return batch

    def take_out(self, chosen: Callable[[Sequence[Work]], Sequence[Work]]) -> list[Work]:
        """Those of all that wait which `chosen` gives; from any thread."""
        with self._changed:
            out = list(chosen([each.work for each in self._waiting]))
            self._remove(out)
            return out

    @property
    def _is_over(self) -> bool:
        return self._is_closed and not self._waiting

    def _chosen(self, choose: Choose) -> list[Work]:
        batch = list(choose(self._waiting)) if self._waiting else []
        if batch:
            self._remove(batch)
        return batch

    def _remove(self, works: Sequence[Work]) -> None:
        taken = {work.job.id for work in works}
        self._waiting = [each for each in self._waiting if each.work.job.id not in taken]
        self._changed.notify_all()  # what is left may go to another device now
