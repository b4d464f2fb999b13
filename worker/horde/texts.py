"""What goes over the wire to and from the horde for texts, as frozen types."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from worker.horde.api import (
    CLEANER_SECONDS,
    FullGeneration,
    GenerationOffer,
    Payload,
    Slot,
    State,
    as_asked,
    slots_of,
)

TEXT_SECONDS = 150  # the ttl of every text


@dataclass(frozen=True, slots=True, kw_only=True)
class TextOffer(GenerationOffer):
    """Of texts. `max_length` and `max_context_length` are in tokens."""

    max_length: int
    max_context_length: int

    def body(self) -> dict[str, Any]:
        """The body of POST generate/text/pop. No soft prompts: no server of today has any."""
        return {**asdict(self), "softprompts": []}


@dataclass(frozen=True, slots=True, kw_only=True)
class TextJob:
    """One text to be written; of a request for several, each has an id of its own.

    `payload` is unchecked: a bad one must be faulted, not lost.
    """

    id: str
    model: str
    payload: Payload
    ttl_seconds: int
    popped_at: float  # elapsed_seconds(), just before the pop was sent

    @property
    def label(self) -> str:
        return self.model

    @property
    def given_up_at(self) -> float:
        """From then on a result may come too late."""
        return self.popped_at + self.ttl_seconds

    @property
    def over_at(self) -> float:
        """When the horde has surely given it to somebody else."""
        return self.given_up_at + CLEANER_SECONDS

    @property
    def slots(self) -> tuple[Slot, ...]:
        return slots_of((self.id,), ("",), self.over_at)

    @property
    def asked(self) -> str:
        """All but the id as JSON, for FullText to read again; "" where it can't be written."""
        return as_asked({"payload": self.payload, "model": self.model, "ttl": self.ttl_seconds})


class FullText(FullGeneration):
    def texts(self, ids: tuple[str, ...], popped_at: float) -> tuple[TextJob, ...]:
        return tuple(
            TextJob(
                id=id,
                model=self.model,
                payload=self.payload,
                ttl_seconds=self.ttl,
                popped_at=popped_at,
            )
            for id in ids
        )

    def job(self, ids: tuple[str, ...], popped_at: float) -> TextJob:
        """Raises ValueError for more ids than one."""
        (text,) = self.texts(ids, popped_at)
        return text


@dataclass(frozen=True, slots=True)
class TextSubmission:
    """The outcome of one text."""

    text_id: str
    state: State
    generation: str = ""

    endpoint: ClassVar[str] = "generate/text/submit"

    def body(self) -> dict[str, Any]:
        """The body of POST generate/text/submit, whose text is required of a fault, too."""
        text = self.generation if self.state is State.OK else "faulted"
        return {"id": self.text_id, "generation": text, "state": self.state.value}
