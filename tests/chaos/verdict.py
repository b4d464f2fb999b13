"""What the sandbox's books say of a worker: pure, so that the suite's own judgement is tested.

Every popped image has one fate. The worker is right when none is lost, none was ended twice, and
each delivered picture is the one that was asked for.
"""

from __future__ import annotations

from bisect import bisect
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from worker.sandbox import Books, GenerationEntry, RequestEntry, State

AT_KILL_SECONDS = 2.0  # a pop so long before a kill may have been on its way


class Fate(StrEnum):
    """What became of one popped image."""

    submitted = "submitted"
    faulted = "faulted"
    given_up = "given up"
    """The horde took it back, and either has told the worker so or could not be told anything."""
    unheard = "unheard"
    """The reply to its pop was lost by an injected fault."""
    at_kill = "popped at a kill"
    """The reply to its pop came to a worker that was being killed."""
    lost = "lost"


@dataclass(frozen=True, slots=True)
class Wrong:
    """One thing that a worker must not do, by the image concerned."""

    id: str
    what: str

    def __str__(self) -> str:
        return f"{self.id}: {self.what}"


@dataclass(frozen=True, slots=True)
class Judgement:
    fates: Mapping[str, Fate]
    """By image id."""
    doubled: tuple[Wrong, ...]
    wrong_pictures: tuple[Wrong, ...]
    recovery_seconds: float
    """The longest time from a kill to the next pop or submit that the horde took."""

    def of(self, fate: Fate) -> tuple[str, ...]:
        return tuple(id for id, one in self.fates.items() if one is fate)

    @property
    def lost(self) -> tuple[str, ...]:
        return self.of(Fate.lost)

    def wrongs(self, books: Books) -> Iterator[Wrong]:
        """Everything that speaks against the worker."""
        for id in self.lost:
            row = books.generation(id)
            yield Wrong(id, f"lost: {row.state}, popped at {row.popped_at:.2f}")
        yield from self.doubled
        yield from self.wrong_pictures

    def table(self) -> str:
        """A line for what was popped, and one for what must not be."""
        counts = Counter(self.fates.values())
        parts = [f"{counts[fate]} {fate}" for fate in Fate if fate is not Fate.lost]
        return (
            f"popped {len(self.fates)} = {' + '.join(parts)}"
            f" | lost {len(self.lost)} | doubled {len(self.doubled)}"
            f" | wrong picture {len(self.wrong_pictures)}"
            f" | longest recovery {self.recovery_seconds:.1f} s"
        )


@dataclass(frozen=True, slots=True)
class Kills:
    """When (seconds of the sandbox's clock) the worker was killed, and when one of its children."""

    worker: list[float] = field(default_factory=list[float])
    children: list[float] = field(default_factory=list[float])


Complaint = Callable[[GenerationEntry, RequestEntry], str]
"""What is wrong with a delivered picture of a request; "" for nothing."""


def judge(books: Books, kills: Kills, complaint: Complaint) -> Judgement:
    requests = {row.id: row for row in books.requests}
    complaints = {
        row.id: complaint(row, requests[row.request_id]) for row in books.in_state(State.ok)
    }
    return Judgement(
        fates=fates(books, kills.worker),
        doubled=tuple(each for row in books.generations for each in doubled(row)),
        wrong_pictures=tuple(Wrong(id, told) for id, told in complaints.items() if told),
        recovery_seconds=longest_recovery(books, [*kills.worker, *kills.children]),
    )


def fates(books: Books, kills: Sequence[float]) -> dict[str, Fate]:
    """By image id. For each kill, one pop at most may have been on its way."""
    decided = {row.id: _fate(row, books) for row in books.generations}
    lost = [row for row in books.generations if decided[row.id] is Fate.lost]
    excused = {id for kill in kills for id in _last_pop(lost, kill)}
    return decided | dict.fromkeys(excused, Fate.at_kill)


def at_work(books: Books, kills: Sequence[float]) -> list[str]:
    """Images whose worker should still say what became of them."""
    decided = fates(books, kills)
    processing = books.in_state(State.processing)
    return [row.id for row in processing if decided[row.id] is Fate.lost]


def _fate(row: GenerationEntry, books: Books) -> Fate:
    if row.state is State.ok:
        return Fate.submitted
    if row.state is State.faulted:
        return Fate.faulted
    if row.unheard:
        return Fate.unheard
    over_at = row.popped_at + row.ttl_seconds
    was_away = any(away.since <= over_at <= away.until for away in books.away)
    return Fate.given_up if row.settlings or was_away else Fate.lost


def _last_pop(lost: Iterable[GenerationEntry], kill: float) -> list[str]:
    """The images of the last pop before a kill, if that pop was just before it."""
    before = [row for row in lost if kill - AT_KILL_SECONDS <= row.popped_at <= kill]
    if not before:
        return []
    last = max(before, key=lambda row: row.popped_at)
    pop = (last.request_id, last.popped_at)
    return [row.id for row in before if (row.request_id, row.popped_at) == pop]


def doubled(row: GenerationEntry) -> Iterator[Wrong]:
    """Two outcomes, two pictures, or two rewards; the same word said twice is none of these."""
    outcomes = {each.state == "faulted" for each in row.settlings}
    if len(outcomes) > 1:
        told = ", ".join(f"{each.state} {each.rc or 'taken'}" for each in row.settlings)
        yield Wrong(row.id, f"two outcomes: {told}")
    if sum(each.state != "faulted" and not each.rc for each in row.settlings) > 1:
        yield Wrong(row.id, "two results were taken")
    if len(set(row.uploads)) > 1:
        yield Wrong(row.id, f"{len(set(row.uploads))} different pictures")


def longest_recovery(books: Books, kills: Iterable[float]) -> float:
    """A kill after which nothing was left to do counts for nothing."""
    signs = sorted(
        [row.popped_at for row in books.generations]
        + [each.at for row in books.generations for each in row.settlings]
    )
    waits = [signs[place] - kill for kill in kills if (place := bisect(signs, kill)) < len(signs)]
    return max(waits, default=0.0)
