"""Which device makes which of the waiting jobs: each goes where it would be done first.

That is where its model is on the card, else where it is in memory, unless so much is to be done
there before that another device is quicker. A device that leaves jobs to busy ones for as long as
it would take to have the model reads it after all: then there are two that have it. All of it is
reckoned, of what was measured, and may be wrong: so no job is left to others for long.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import Protocol

from worker.clock import elapsed_seconds
from worker.jobs.work import Work
from worker.line.devices.waiting_jobs import Choose, Fits, Waiting, batch_for

NEAREST = 32  # jobs that are reckoned with, of those that wait: later ones change little
UNKNOWN_SECONDS = 30.0  # of a job of which nothing is known
PASSED_SECONDS = 10.0  # for which a device without a job leaves one to another device


class Place(Protocol):
    """A device at this moment."""

    @property
    def kind(self) -> Hashable:
        """The same for devices that take the same seconds for a job."""
        ...

    @property
    def is_free(self) -> bool:
        """Whether it waits for a job."""
        ...

    @property
    def seconds_left(self) -> float | None:
        """Of what it makes; None where nothing is known."""
        ...

    def serves(self, work: Work) -> bool: ...

    def seconds_to_have(self, model: str) -> float:
        """Until the model is on the card; 0: it is."""
        ...

    def seconds(self, work: Work) -> float | None:
        """That the job takes there, with its model on the card; None where nothing is known."""
        ...


@dataclass(slots=True)
class _Turn:
    """A device after the jobs that it was given already."""

    place: Place
    free_in: float
    model: str | None = None  # of the last of these jobs

    def done_in(self, model: str, seconds: float) -> float:
        having = 0.0 if model == self.model else self.place.seconds_to_have(model)
        return self.free_in + having + seconds


def chooser(here: Place, others: Sequence[Place], fits: Fits, passing_since: float = inf) -> Choose:
    """Chooses for one device, which has nothing to do now, beside others. `passing_since`: when it
    began to leave all that waits to others (elapsed_seconds()).

    The oldest job that would not be done sooner elsewhere, with those that share its batch, but for
    those that another device without a job is to make. None where all are for others.
    """

    def is_overdue(each: Waiting, place: Place, now: float) -> bool:
        if not here.serves(each.work):
            return False
        has_waited = now - passing_since > here.seconds_to_have(each.work.model.name)
        return now - each.passed_at > PASSED_SECONDS or (has_waited and not place.is_free)

    def choose(waiting: Sequence[Waiting]) -> Sequence[Work]:
        if not others:
            return batch_for(waiting[0], waiting[1:], fits)
        now, near = elapsed_seconds(), waiting[:NEAREST]
        places = list(destinations([each.work for each in near], (here, *others)))
        for at, (lead, place) in enumerate(zip(near, places, strict=True)):
            if place is here or place is None or is_overdue(lead, place, now):
                company = [
                    each
                    for each, place in zip(near, places, strict=True)
                    if each is not lead and _may_join(each.work, place, here)
                ]
                _pass(near[:at], now)
                return batch_for(lead, company, fits)
        _pass(near, now)
        return ()

    return choose


def destinations(waiting: Sequence[Work], places: Sequence[Place]) -> Iterator[Place | None]:
    """Where each of these would be done first, the jobs before it given; None: nowhere."""
    turns = [_Turn(each, 0.0 if each.is_free else _known(each.seconds_left)) for each in places]
    for work in waiting:
        model, seconds = work.model.name, dict[Hashable, float]()
        best: tuple[float, _Turn] | None = None
        for turn in turns:
            place = turn.place
            if not place.serves(work):
                continue
            if place.kind not in seconds:
                seconds[place.kind] = _known(place.seconds(work))
            done_in = turn.done_in(model, seconds[place.kind])
            if best is None or done_in < best[0]:
                best = (done_in, turn)
        if best is not None:
            best[1].free_in, best[1].model = best[0], model
        yield best and best[1].place


def late_ones(waiting: Sequence[Work], places: Sequence[Place], within: float) -> list[Work]:
    """Which of these no device would have made within so many seconds, the jobs before it given.

    What nothing is known of might be made in no time.
    """
    ends = {place: place.seconds_left or 0.0 for place in places}
    late: list[Work] = []
    for work in waiting:
        able = [place for place in places if place.serves(work)] or places
        done = {place: ends[place] + (place.seconds(work) or 0.0) for place in able}
        first = min(done, key=done.__getitem__, default=None)
        if first is None or done[first] > within:
            late.append(work)
        else:
            ends[first] = done[first]
    return late


def _may_join(work: Work, place: Place | None, here: Place) -> bool:
    is_elsewhere = place is not None and place is not here and place.is_free
    return here.serves(work) and not is_elsewhere


def _known(seconds: float | None) -> float:
    return UNKNOWN_SECONDS if seconds is None else seconds


def _pass(waiting: Sequence[Waiting], now: float) -> None:
    for each in waiting:
        each.passed_at = min(each.passed_at, now)
