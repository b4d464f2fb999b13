"""What the workers of the kinds beside pictures have in common: rows, check-ins and pages."""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from worker.sandbox.errors import Refusal
from worker.sandbox.records import STALE_SECONDS, Account
from worker.sandbox.registration import stored_text
from worker.sandbox.replies import Json

CHECK_IN_SECONDS = 30


class Offer(Protocol):
    """What a pop of any kind says of its worker."""

    @property
    def name(self) -> str: ...

    @property
    def bridge_agent(self) -> str: ...

    @property
    def threads(self) -> int: ...

    @property
    def priority_usernames(self) -> tuple[str, ...]: ...


AnyOffer = TypeVar("AnyOffer", bound=Offer)


@dataclass(slots=True)
class KindWorker(ABC, Generic[AnyOffer]):
    """A worker's row; `offer` is what its last check-in stored."""

    id: str
    name: str
    owner: Account
    created_at: float
    checked_in_at: float
    offer: AnyOffer
    maintenance: str | None = None
    kudos: float = 0.0
    fulfilled: int = 0
    uncompleted: int = 0

    @abstractmethod
    def told(self) -> Json:
        """What its page has of this kind alone."""

    def told_to_its_owner(self) -> Json:
        return {"owner": self.owner.user.username}

    def when_checked_in(self, now: float) -> None:
        """Before the time of its check-in becomes `now`."""

    def page(self, viewer: Account | None, now: float) -> Json:
        """As anybody sees it; its owner is shown to itself and to moderators."""
        page: Json = {
            "requests_fulfilled": self.fulfilled,
            "kudos_rewards": self.kudos,
            "threads": self.offer.threads,
            "maintenance_mode": self.maintenance is not None,
            "trusted": self.owner.user.trusted,
            "flagged": self.owner.flagged,
            "uncompleted_jobs": self.uncompleted,
            "team": {"name": None, "id": None},
            "bridge_agent": self.offer.bridge_agent,
            "name": self.name,
            "id": self.id,
            "online": now - self.checked_in_at <= STALE_SECONDS,
            **self.told(),
        }
        if viewer is not None and (viewer is self.owner or viewer.user.moderator):
            page |= self.told_to_its_owner()
        return page

    def comes_first(self, account: Account, asked_at: float) -> tuple[bool, float, float]:
        """By what requests of these accounts are sorted for it: the least is done first."""
        preferred = {self.owner.user.username, *self.offer.priority_usernames}
        return account.user.username not in preferred, -account.kudos, asked_at


AnyRow = TypeVar("AnyRow", bound=KindWorker[Any])


class Workers(Generic[AnyRow]):
    """Those of one kind.

    Args:
        make: a row of its first six fields.
    """

    def __init__(self, make: Callable[..., AnyRow]):
        self._make = make
        self.by_name: dict[str, AnyRow] = {}

    def by_id(self, id: str) -> AnyRow | None:
        return next((row for row in self.by_name.values() if row.id == id), None)

    def checked_in(self, owner: Account, body: Offer, now: float) -> AnyRow:
        """What a pop says of itself counts at once in the row's first 30 seconds only."""
        name = stored_text(body.name)
        row = self.by_name.get(name)
        if row is None:
            row = self._make(str(uuid.uuid4()), name, owner, now, now, body)
            self.by_name[name] = row
        elif row.owner is not owner:
            raise Refusal("WrongCredentials")
        elif (
            now - row.checked_in_at >= CHECK_IN_SECONDS or now - row.created_at <= CHECK_IN_SECONDS
        ):
            row.when_checked_in(now)
            row.checked_in_at, row.offer = now, body
        return row
