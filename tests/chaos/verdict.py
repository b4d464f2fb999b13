"""What the sandbox's books say of a worker: pure, so that the suite's own judgement is tested.

Every popped image and text has one fate, and so has each form each time that it was handed out.
The worker is right when none is lost, none was ended twice, and each delivered result is the one
that was asked for.
"""

from __future__ import annotations

import math
from bisect import bisect
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from worker.horde.kinds import Kind
from worker.sandbox import (
    Books,
    FormEntry,
    GenerationEntry,
    RequestEntry,
    Settling,
    State,
    TextEntry,
)

# So long before a kill and after it, the horde may have handed out what the killed worker had asked
# for. Of what came before, the worker's ledger tells whether it had come.
BEFORE_KILL_SECONDS, AFTER_KILL_SECONDS = 15.0, 1.0


@dataclass(frozen=True, slots=True)
class Held:
    """What a worker had popped: an image, a text, or a form that may come again under its id.

    `key` is of this handing out alone, `pop` of all that came in one answer.
    """

    key: str
    id: str
    kind: Kind
    pop: tuple[str, float]
    over_at: float
    state: State
    settlings: Sequence[Settling]
    unheard: bool
    uploads: Sequence[str]

    @property
    def popped_at(self) -> float:
        return self.pop[1]


def held_of(books: Books) -> tuple[Held, ...]:
    images = (_image(row) for row in books.generations)
    forms = (held for form in books.forms for held in _holds(form))
    return (*images, *forms, *map(_text, books.texts))


def _image(row: GenerationEntry) -> Held:
    return Held(
        row.id,
        row.id,
        Kind.image,
        (row.request_id, row.popped_at),
        row.popped_at + row.ttl_seconds,
        row.state,
        row.settlings,
        row.unheard,
        row.uploads,
    )


def _text(row: TextEntry) -> Held:
    pop = (row.request_id, row.popped_at)
    ended = (row.over_at, row.state, row.settlings, row.unheard)
    return Held(row.id, row.id, Kind.text, pop, *ended, uploads=())


def _holds(form: FormEntry) -> Iterator[Held]:
    for number, hold in enumerate(form.holds, 1):
        yield Held(
            f"{form.id}, time {number}",
            form.id,
            Kind.form,
            ("forms", hold.popped_at),
            hold.over_at,
            hold.state,
            hold.settlings,
            hold.unheard,
            form.uploads if number == len(form.holds) else (),
        )


class Fate(StrEnum):
    """What became of one popped image, form or text."""

    submitted = "submitted"
    faulted = "faulted"
    given_up = "given up"
    """The horde took it back, and either has told the worker so or could not be told anything."""
    unheard = "unheard"
    """The reply to its pop was lost by an injected fault."""
    at_kill = "popped at a kill"
    """The reply to its pop came to a worker that was being killed: its ledger has no row of it."""
    lost = "lost"


@dataclass(frozen=True, slots=True)
class Wrong:
    """One thing that a worker must not do, by the image, form or text concerned."""

    id: str
    what: str

    def __str__(self) -> str:
        return f"{self.id}: {self.what}"


@dataclass(frozen=True, slots=True)
class Judgement:
    fates: Mapping[str, Fate]
    """By Held.key."""
    doubled: tuple[Wrong, ...]
    wrong_results: tuple[Wrong, ...]
    recovery_seconds: float
    """The longest time from a kill to the next pop or submit that the horde took."""

    def of(self, fate: Fate) -> tuple[str, ...]:
        return tuple(id for id, one in self.fates.items() if one is fate)

    @property
    def lost(self) -> tuple[str, ...]:
        return self.of(Fate.lost)

    def wrongs(self, books: Books) -> Iterator[Wrong]:
        """Everything that speaks against the worker."""
        for held in held_of(books):
            if self.fates[held.key] is Fate.lost:
                told = f"lost: {held.kind} {held.state}, popped at {held.popped_at:.2f}"
                yield Wrong(held.key, told)
        yield from self.doubled
        yield from self.wrong_results

    def table(self) -> str:
        """A line for what was popped, and one for what must not be."""
        counts = Counter(self.fates.values())
        parts = [f"{counts[fate]} {fate}" for fate in Fate if fate is not Fate.lost]
        return (
            f"popped {len(self.fates)} = {' + '.join(parts)}"
            f" | lost {len(self.lost)} | doubled {len(self.doubled)}"
            f" | wrong {len(self.wrong_results)}"
            f" | longest recovery {self.recovery_seconds:.1f} s"
        )


@dataclass(frozen=True, slots=True)
class Kill:
    """Of the worker. `at` is in seconds of the sandbox's clock; `known` are the ids of what its
    ledger held then: a form that has ended may come again under the same one.

    `in_memory`: its disk had failed it just before, so that what it popped since was known to
    nobody else, as the worker says.
    """

    at: float
    known: frozenset[str] = frozenset()
    in_memory: bool = False


@dataclass(frozen=True, slots=True)
class Kills:
    """Those of the worker, and when (seconds of the sandbox's clock) a child of it was killed."""

    worker: list[Kill] = field(default_factory=list[Kill])
    children: list[float] = field(default_factory=list[float])


Complaint = Callable[[GenerationEntry, RequestEntry], str]
"""What is wrong with a delivered picture of a request; "" for nothing."""
FormComplaint = Callable[[FormEntry], str]
"""What is wrong with the result of a form that is done; "" for nothing."""


TextComplaint = Callable[[TextEntry], str]
"""What is wrong with a text that was delivered; "" for nothing."""


def no_form(form: FormEntry) -> str:
    """Where none is asked for."""
    return f"nobody asked for {form.form}"


def no_text(text: TextEntry) -> str:
    """Where none is asked for."""
    return f"nobody asked for a text: {text.text!r}"


def judge(
    books: Books,
    kills: Kills,
    complaint: Complaint,
    of_form: FormComplaint = no_form,
    of_text: TextComplaint = no_text,
) -> Judgement:
    requests = {row.id: row for row in books.requests}
    complaints = {
        row.id: complaint(row, requests[row.request_id]) for row in books.in_state(State.ok)
    }
    complaints |= {form.id: of_form(form) for form in books.forms if form.state == "done"}
    complaints |= {text.id: of_text(text) for text in books.texts if text.state is State.ok}
    return Judgement(
        fates=fates(books, kills.worker),
        doubled=tuple(each for held in held_of(books) for each in doubled(held, kills.worker)),
        wrong_results=tuple(Wrong(id, told) for id, told in complaints.items() if told),
        recovery_seconds=longest_recovery(
            books, [*(kill.at for kill in kills.worker), *kills.children]
        ),
    )


def fates(books: Books, kills: Sequence[Kill]) -> dict[str, Fate]:
    """By Held.key. For each kill, one pop of each kind at most may have been on its way."""
    all_held = held_of(books)
    decided = {held.key: _fate(held, books) for held in all_held}
    lost = [held for held in all_held if decided[held.key] is Fate.lost]
    excused = {key for kill in kills for kind in Kind for key in _last_pop(lost, kind, kill)}
    return decided | dict.fromkeys(excused, Fate.at_kill)


def at_work(books: Books, kills: Sequence[Kill]) -> list[str]:
    """Images, forms and texts whose worker should still say what became of them."""
    decided = fates(books, kills)
    processing = [held for held in held_of(books) if held.state is State.processing]
    return [held.id for held in processing if decided[held.key] is Fate.lost]


def _fate(held: Held, books: Books) -> Fate:
    if held.state is State.ok:
        return Fate.submitted
    if held.state is State.faulted:
        return Fate.faulted
    if held.unheard:
        return Fate.unheard
    was_away = any(away.since <= held.over_at <= away.until for away in books.away)
    return Fate.given_up if held.settlings or was_away else Fate.lost


def _last_pop(lost: Iterable[Held], kind: Kind, kill: Kill) -> list[str]:
    """The last pop of that kind that may have been on its way at a kill; all that the ledger did
    not know, where it was in memory alone."""
    since, until = kill.at - BEFORE_KILL_SECONDS, kill.at + AFTER_KILL_SECONDS
    unheard = [
        held
        for held in lost
        if held.kind is kind and since <= held.popped_at <= until and held.id not in kill.known
    ]
    if not unheard or kill.in_memory:
        return [held.key for held in unheard]
    last = max(unheard, key=lambda held: held.popped_at)
    return [held.key for held in unheard if held.pop == last.pop]


def doubled(row: Held, kills: Sequence[Kill] = ()) -> Iterator[Wrong]:
    """Two outcomes, two pictures, or two rewards; the same word said twice is none of these.

    What the horde refuses says nothing of a form, which comes again under the same id once it has
    failed, nor of anything of which the worker had spoken in a life whose end only its memory knew.
    """
    first = min((each.at for each in row.settlings), default=0.0)
    later = (kill.at for kill in kills if kill.in_memory and kill.at + AFTER_KILL_SECONDS >= first)
    since = 0.0 if row.kind is Kind.form else min(later, default=math.inf)
    said = [each for each in row.settlings if not each.rc or each.at < since]
    outcomes = {each.state == "faulted" for each in said}
    if len(outcomes) > 1:
        told = ", ".join(f"{each.state} {each.rc or 'taken'}" for each in said)
        yield Wrong(row.key, f"two outcomes: {told}")
    if sum(each.state != "faulted" and not each.rc for each in row.settlings) > 1:
        yield Wrong(row.key, "two results were taken")
    if len(set(row.uploads)) > 1:
        yield Wrong(row.key, f"{len(set(row.uploads))} different pictures")


def longest_recovery(books: Books, kills: Iterable[float]) -> float:
    """A kill after which nothing was left to do counts for nothing."""
    all_held = held_of(books)
    signs = sorted(
        [held.popped_at for held in all_held]
        + [each.at for held in all_held for each in held.settlings]
    )
    waits = [signs[place] - kill for kill in kills if (place := bisect(signs, kill)) < len(signs)]
    return max(waits, default=0.0)
