"""The rows of alchemy: alchemists, requests, forms, and each time that a form was handed out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from worker.sandbox.kinds.alchemy_wire import AskedForm, FormPopBody, InterrogateBody
from worker.sandbox.kinds.workers import KindWorker
from worker.sandbox.records import STALE_SECONDS, Account, Settling, State
from worker.sandbox.replies import Json

TILE_SIDE = 512
MOST_TILES = 255  # of a request
_UPTIME_SECONDS, _UPTIME_KUDOS = 600, 40


def tiles_of(width: int, height: int) -> int:
    """How many tiles of 512 x 512 pixels cover a picture."""
    return math.ceil(width / TILE_SIDE) * math.ceil(height / TILE_SIDE)


@dataclass(frozen=True, slots=True)
class SourcePicture:
    """A client's picture: `webp` is None where `address` is handed on as it is."""

    webp: bytes | None
    address: str
    width: int
    height: int


@dataclass(slots=True)
class Alchemist(KindWorker[FormPopBody]):
    uptime_seconds: float = 0.0
    rewarded_uptime_seconds: float = 0.0
    seconds: list[float] = field(default_factory=list[float])

    @property
    def seconds_per_form(self) -> float:
        latest = self.seconds[-20:]
        return sum(latest) / len(latest) if latest else 0.0

    def told(self) -> Json:
        return {
            "type": "interrogation",
            "kudos_details": {"generated": None, "uptime": None},
            "performance": f"{self.seconds_per_form:.1f} seconds per form",
            "uptime": int(self.uptime_seconds),
            "nsfw": False,
            "forms": sorted(self.offer.forms),
        }

    def when_checked_in(self, now: float) -> None:
        if self.maintenance is None and now - self.checked_in_at <= STALE_SECONDS:
            self.uptime_seconds += now - self.checked_in_at
        if self.uptime_seconds - self.rewarded_uptime_seconds > _UPTIME_SECONDS:
            self.rewarded_uptime_seconds = self.uptime_seconds
            self.kudos += _UPTIME_KUDOS
            self.owner.kudos += _UPTIME_KUDOS


@dataclass(slots=True)
class Hold:
    """One handing out of a form: a worker's share in it."""

    id: str
    alchemist: Alchemist
    popped_at: float
    over_at: float
    state: State = State.processing
    settlings: list[Settling] = field(default_factory=list[Settling])
    unheard: bool = False
    reward: float = 0.0


@dataclass(slots=True)
class FormRow:
    """One form of a request. `id` names it at the worker, whoever has it."""

    id: str
    request: FormRequest
    asked: AskedForm
    state: str = "waiting"
    result: Mapping[str, Any] | None = None
    aborts: int = 0
    holds: list[Hold] = field(default_factory=list[Hold])

    @property
    def name(self) -> str:
        return self.asked.name


@dataclass(slots=True)
class FormRequest:
    id: str
    account: Account
    body: InterrogateBody
    source: SourcePicture
    created_at: float
    expires_at: float
    forms: list[FormRow] = field(default_factory=list[FormRow])
    expired: bool = False

    @property
    def tiles(self) -> int:
        return tiles_of(self.source.width, self.source.height)

    @property
    def state(self) -> str:
        states = {form.state for form in self.forms}
        if len(states) == 1:
            (state,) = states
            return "partial" if state == "cancelled" else state
        return "partial" if states & {"done", "faulted", "cancelled"} else "processing"


@dataclass(frozen=True, slots=True)
class FormEntry:
    """One form in the books: what was asked, every worker that had it, and what the client has."""

    id: str
    request_id: str
    form: str
    state: str
    result: Mapping[str, Any] | None
    aborts: int
    holds: tuple[HoldEntry, ...]
    uploads: tuple[str, ...]
    """The SHA-256 of each upload, in their order."""


@dataclass(frozen=True, slots=True)
class HoldEntry:
    alchemist: str
    popped_at: float
    over_at: float
    """When the cleaner may give it to somebody else."""
    state: State
    settlings: tuple[Settling, ...]
    unheard: bool
    reward: float


def form_entry(form: FormRow, uploads: tuple[str, ...]) -> FormEntry:
    """What the books say of it."""
    holds = tuple(
        HoldEntry(
            hold.alchemist.name,
            hold.popped_at,
            hold.over_at,
            hold.state,
            tuple(hold.settlings),
            hold.unheard,
            hold.reward,
        )
        for hold in form.holds
    )
    return FormEntry(
        form.id,
        form.request.id,
        form.name,
        form.state,
        form.result,
        form.aborts,
        holds,
        uploads,
    )
