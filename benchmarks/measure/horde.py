"""The local horde in a process of its own, so that its work does not count as the worker's."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.managers import BaseManager

from worker.sandbox import Endpoint, Latency, ReferenceModel, Sandbox, State

CALLS = (Endpoint.POP, Endpoint.SUBMIT, Endpoint.UPLOAD)  # of a worker, for each job
POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Settled:
    """One image that is over. Times in seconds of the horde's clock."""

    worker: str
    popped_at: float
    submitted_at: float
    is_faulted: bool

    @property
    def taken_seconds(self) -> float:
        return self.submitted_at - self.popped_at


class ServedHorde:
    """Lives in the horde's process, elsewhere there is a proxy: it takes and gives plain data."""

    def __init__(self, models: Mapping[str, ReferenceModel], latency_seconds: float):
        self._sandbox = Sandbox(models, limits={})
        for call in CALLS:
            self._sandbox.faults.inject(call, Latency(latency_seconds))
        self._sandbox.start()

    def url(self) -> str:
        return self._sandbox.url

    def wait_for(self, images: int, seconds: float) -> int:
        """How many are over, as soon as that are so many, or after so many seconds."""
        until = time.monotonic() + seconds
        while (over := self._over()) < images and time.monotonic() < until:
            time.sleep(POLL_SECONDS)
        return over

    def settled(self) -> list[Settled]:
        """All that are over, in the order of their ends."""
        found = [
            Settled(
                worker=row.worker,
                popped_at=row.popped_at,
                submitted_at=row.settlings[0].at,
                is_faulted=row.state is not State.ok,
            )
            for row in self._sandbox.books().generations
            if row.settlings
        ]
        return sorted(found, key=lambda image: image.submitted_at)

    def forms_settled(self) -> list[Settled]:
        """The same of forms; one that was faulted and done later is there twice."""
        found = [
            Settled(
                worker=hold.alchemist,
                popped_at=hold.popped_at,
                submitted_at=hold.settlings[0].at,
                is_faulted=hold.state is not State.ok,
            )
            for form in self._sandbox.books().forms
            for hold in form.holds
            if hold.settlings
        ]
        return sorted(found, key=lambda form: form.submitted_at)

    def open_forms(self) -> int:
        """Those that no worker has done yet."""
        states = [form.state for form in self._sandbox.books().forms]
        return states.count("waiting") + states.count("processing")

    def _over(self) -> int:
        return self._sandbox.tally().statuses.get((Endpoint.SUBMIT.value, 200), 0)


class _Manager(BaseManager):
    """Its process ignores Ctrl-C, and ends with the one that began it."""

    horde: Callable[[Mapping[str, ReferenceModel], float], ServedHorde]


@contextmanager
def served_horde(
    models: Mapping[str, ReferenceModel], latency_seconds: float = 0.0
) -> Generator[ServedHorde]:
    """A horde without limits that answers a worker's calls so many seconds late."""
    _Manager.register("horde", ServedHorde)
    with _Manager(ctx=get_context("spawn")) as manager:
        yield manager.horde(models, latency_seconds)
