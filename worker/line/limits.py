"""The bridge's own times and counts, which no owner has to know, and how far to pop ahead."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Self

from worker.jobs.results import UNMADE
from worker.jobs.status import JobRow
from worker.line.gaps import PATIENCE_SECONDS


@dataclass(frozen=True, slots=True)
class Limits:
    """How many of each there are, and how long is waited.

    What is said of jobs is for each device, but for `most_unfinished`; `of_devices` has more of
    what all of them share.
    """

    pictures: bool = True  # whether any are asked for
    engine: bool = True  # whether it is started, and the judge
    waiting_jobs: int = 1  # popped ahead, beside the one at work, however long they take
    seconds_ahead: float = 10.0  # of work: more jobs wait where all of them take less
    most_ahead: int = 8  # jobs in hand, then; where none may wait, none does
    gap_seconds: float = PATIENCE_SECONDS  # that other work waits for a gap between pictures
    preparers: int = 2
    finishers: int = 3  # images on their way to the horde at once
    most_unfinished: int = 6  # jobs made and not delivered: nothing more is made then
    engine_starts: int = 3  # failed ones in a row until the worker gives up
    idle_seconds: tuple[float, float] = (1.0, 5.0)  # between empty pops: the first, the longest
    stop_seconds: float = 60.0  # for the jobs in hand, after the first signal to stop
    first_contact_seconds: float = 30.0  # a horde never reached for so long has a wrong address

    def of_devices(self, count: int) -> Self:
        more = count - 1
        return replace(
            self,
            preparers=self.preparers + more,
            finishers=self.finishers + more,
            most_unfinished=self.most_unfinished * count,
        )

    def have_room(self, jobs: Iterable[JobRow], devices: int = 1) -> bool:
        """Whether one more job may be popped beside these, for so many devices.

        `waiting_jobs` of each may always wait. Where all that are to be made together take less
        than `seconds_ahead`, so that they would be done before others are there, more may.
        """
        if not self.pictures:
            return False
        unmade = [job.own_seconds for job in jobs if job.stage in UNMADE]
        if len(unmade) < devices * (1 + self.waiting_jobs):
            return True
        most = self.most_ahead if self.waiting_jobs else 1
        return len(unmade) < devices * most and sum(unmade) < devices * self.seconds_ahead
