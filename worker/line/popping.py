"""The step "pop": some jobs ahead of the devices, after what an earlier life has left.

What was popped and is not made is given back here, too.
"""

from __future__ import annotations

import logging
import queue
from collections.abc import Callable, Sequence
from functools import cache

from worker.clock import elapsed_seconds
from worker.errors import UnusableJob
from worker.horde.api import Job, Slot, slots_of
from worker.jobs.journal import Journal
from worker.jobs.results import PAUSED, STOPPING, Results, failed, failed_slots
from worker.line.finishing import Finishing
from worker.line.halt import Halt
from worker.line.popper import Popper
from worker.service_manager import restart_follows

log = logging.getLogger(__name__)

FAULT_SECONDS = 60.0  # for telling the horde of a job that could not be read


class Popping:
    """`popped` has the jobs, for whoever reads them; None is its end.

    Args:
        has_room: whether one more job may be popped.
    """

    def __init__(
        self,
        popper: Popper,
        journal: Journal,
        finishing: Finishing,
        halt: Halt,
        has_room: Callable[[], bool],
    ):
        self._popper = popper
        self._journal = journal
        self._finishing = finishing
        self._halt = halt
        self._has_room = has_room
        self._restart_follows = cache(restart_follows)
        self.popped: queue.Queue[Job | None] = queue.Queue()

    def introduce(self) -> None:
        """Raises what Popper.introduce does."""
        self._popper.introduce()

    def work(self) -> None:
        """Until the line stops."""
        while self._wait_for_room():
            self._when_popped(self._popper.pop())

    def _wait_for_room(self) -> bool:
        """Until one more job may be popped; False where the bridge stops."""
        stopping = self._halt.stopping
        self._journal.wait_for(lambda: stopping.is_set() or self._has_room())
        return not stopping.is_set()

    def settle_debts(self) -> None:
        """What an earlier life of the worker has left: deliver what it has finished, make again
        what can still be in time, and fault the rest."""
        to_make: list[Job] = []
        for debt in self._journal.owed():
            match debt:
                case Job():
                    to_make.append(debt)
                case Results():
                    self._finishing.add(debt)
                case _:
                    raise TypeError(f"{debt} in the journal of pictures")
        if to_make:
            log.info("jobs from before the restart that can still be made: %d", len(to_make))
        for job in to_make:
            if self._halt.pause:
                self._finishing.add(failed(job, PAUSED))
            elif self._halt.stopping.is_set():
                self.give_back(job.id, job.slots)
            else:
                self.popped.put(job)

    def give_back(self, job_id: str, slots: Sequence[Slot]) -> None:
        """Nothing was made of it, for a pause or a stop: the next life does it where one begins at
        once, and another worker otherwise."""
        if self._halt.is_at_once:
            log.info("job %s: given back, since the worker is paused", job_id)
            self._finishing.add(failed_slots(slots, PAUSED))
        elif self._restart_follows():
            log.info("job %s: it is made again after the restart, if there is time", job_id)
            self._journal.leave(job_id)
        else:
            self._finishing.add(failed_slots(slots, STOPPING))

    def _when_popped(self, popped: Job | UnusableJob | None) -> None:
        match popped:
            case Job():
                self._journal.popped(popped.slots, popped.model, popped.asked)
                self.popped.put(popped)
            case UnusableJob(ids=ids):
                slots = slots_of(ids, ("",) * len(ids), elapsed_seconds() + FAULT_SECONDS)
                self._journal.popped(slots, "")
                self._finishing.add(failed_slots(slots, str(popped)))
            case None:
                pass
