"""What goes over the wire to and from the horde for forms of alchemy, as frozen types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from pydantic import Field

from worker.horde.api import CLEANER_SECONDS, Reply, Slot, State, as_asked, slots_of
from worker.net.untrusted import Id, Label, Link

FORM_SECONDS = 180  # from the pop; then the horde gives the form to somebody else
MOST_FORMS = 100  # of one answer


@dataclass(frozen=True, slots=True, kw_only=True)
class FormOffer:
    """What this alchemist takes at one pop: at most `amount` forms (the horde's own default is 1).

    A single word that the server does not know refuses the whole pop.
    """

    name: str
    forms: tuple[str, ...]
    bridge_agent: str
    max_tiles: int
    amount: int = 1
    annotation_types: tuple[str, ...] = ()
    threads: int = 1
    priority_usernames: tuple[str, ...] = ()

    def body(self) -> dict[str, Any]:
        """The body of POST interrogate/pop."""
        told = asdict(self)
        if not self.annotation_types:  # a server without annotation has no word for them
            del told["annotation_types"]
        return told


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """One form over one picture. `upload_url` is "" where the result is no picture."""

    id: str
    form: str
    source_image: str
    payload: Mapping[str, Any] = field(default_factory=dict[str, Any], hash=False)
    upload_url: str = ""
    popped_at: float  # elapsed_seconds(), just before the pop was sent

    @property
    def label(self) -> str:
        return self.form

    @property
    def over_at(self) -> float:
        """When the horde has surely given it to somebody else."""
        return self.popped_at + FORM_SECONDS + CLEANER_SECONDS

    @property
    def slots(self) -> tuple[Slot, ...]:
        return slots_of((self.id,), (self.upload_url,), self.over_at)

    @property
    def asked(self) -> str:
        """All but the id as JSON, for FullForm to read again; "" where it can't be written."""
        told = {
            "id": self.id,
            "form": self.form,
            "source_image": self.source_image,
            "payload": dict(self.payload),
            "r2_upload": self.upload_url or None,
        }
        return as_asked(told)


class FormId(Reply):
    """The part of a form without which it can't even be faulted."""

    id: Id


class FullForm(Reply):
    id: Id
    form: Label
    source_image: str
    payload: dict[str, Any] | None = None
    r2_upload: Link | None = None

    @property
    def ttl(self) -> int:
        return FORM_SECONDS

    def job(self, ids: tuple[str, ...], popped_at: float) -> Form:
        """Raises ValueError where it is about other ids than its own."""
        if ids != (self.id,):
            raise ValueError(f"the form {self.id} under {len(ids)} other ids")
        return Form(
            id=self.id,
            form=self.form,
            source_image=self.source_image,
            payload=self.payload or {},
            upload_url=self.r2_upload or "",
            popped_at=popped_at,
        )


class FormsPop(Reply):
    """An answer to a pop; each form is read on its own, so that a bad one costs no other."""

    forms: tuple[dict[str, Any], ...] | None = Field(default=None, max_length=MOST_FORMS)
    skipped: dict[str, int] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FormSubmission:
    """The outcome of one form. `value` is "R2" for an uploaded picture, else the result itself."""

    form_id: str
    form: str
    state: State
    value: Any = None

    endpoint: ClassVar[str] = "interrogate/submit"

    def body(self) -> dict[str, Any]:
        """The body of POST interrogate/submit, whose result may be empty and never null."""
        result = {self.form: self.value} if self.state is State.OK else {}
        return {"id": self.form_id, "result": result, "state": self.state.value}
