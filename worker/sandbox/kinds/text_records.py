"""The rows of texts: scribes, requests, and each text in a worker's hands."""

from __future__ import annotations

from dataclasses import dataclass, field

from worker.sandbox.kinds.text_wire import TextAskBody, TextPopBody
from worker.sandbox.kinds.workers import KindWorker
from worker.sandbox.records import Account, Settling, State
from worker.sandbox.replies import Json

_SPEED_SAMPLES = 20
_NEWCOMER_TOKENS_PER_SECOND = 1.0


@dataclass(slots=True)
class ScribeRow(KindWorker[TextPopBody]):
    suspicions: int = 0
    speeds: list[float] = field(default_factory=list[float])

    @property
    def tokens_per_second(self) -> float:
        latest = self.speeds[-_SPEED_SAMPLES:]
        return sum(latest) / len(latest) if latest else _NEWCOMER_TOKENS_PER_SECOND

    def told(self) -> Json:
        return {
            "type": "text",
            "kudos_details": {"generated": self.kudos, "uptime": None},
            "performance": f"{self.tokens_per_second:.1f} tokens per second",
            "uptime": 0,
            "nsfw": self.offer.nsfw,
            "models": list(self.offer.models),
            "max_length": self.offer.max_length,
            "max_context_length": self.offer.max_context_length,
        }

    def told_to_its_owner(self) -> Json:
        return {"owner": self.owner.user.username, "suspicious": self.suspicions}


@dataclass(slots=True)
class TextRow:
    """One text in a worker's hands. Its id is of this handing out alone."""

    id: str
    request: TextRequest
    scribe: ScribeRow
    model: str
    popped_at: float
    over_at: float
    """From then on, the cleaner takes it away."""
    state: State = State.processing
    text: str = ""
    said: str = "ok"
    """The state that the worker gave it."""
    is_csam: bool = False
    reward: float = 0.0
    settlings: list[Settling] = field(default_factory=list[Settling])
    unheard: bool = False


@dataclass(slots=True)
class TextRequest:
    """A client's request. `waiting` texts are still to be handed out."""

    id: str
    account: Account
    body: TextAskBody
    created_at: float
    expires_at: float
    waiting: int
    consumed_kudos: float = 1.0
    cancelled: bool = False
    faulted: bool = False
    expired: bool = False
    texts: list[TextRow] = field(default_factory=list[TextRow])

    def count(self, *states: State) -> int:
        return sum(text.state in states for text in self.texts)

    @property
    def restarted(self) -> int:
        return self.count(State.faulted, State.aborted)

    @property
    def done(self) -> bool:
        return self.faulted or (self.waiting == 0 and self.count(State.processing) == 0)


@dataclass(frozen=True, slots=True)
class TextEntry:
    """One text in the books, for each time that it was handed out."""

    id: str
    request_id: str
    scribe: str
    model: str
    prompt: str
    popped_at: float
    over_at: float
    state: State
    text: str
    reward: float
    settlings: tuple[Settling, ...]
    unheard: bool


def text_entry(row: TextRow) -> TextEntry:
    """What the books say of it."""
    return TextEntry(
        row.id,
        row.request.id,
        row.scribe.name,
        row.model,
        row.request.body.prompt,
        row.popped_at,
        row.over_at,
        row.state,
        row.text,
        row.reward,
        tuple(row.settlings),
        row.unheard,
    )
