"""Why a worker asks for no jobs although it could, and what becomes of the card meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum


class PauseCause(StrEnum):
    """Who or what wants it: the owner's order, or the key of bridgeData.yaml."""

    owner = "owner"
    serve_hours = "serve_hours"
    pause_for = "pause_for"
    others_on_card = "others_on_card"
    user_active = "user_active"
    on_battery = "on_battery"
    max_card_temperature = "max_card_temperature"


class PauseKind(IntEnum):
    """What becomes of the jobs in hand and of the card; the greatest of several counts."""

    none = 0
    rest = 1
    """Jobs in hand are finished, and the card keeps its models."""
    finish = 2
    """Jobs in hand are finished, then the card is free."""
    at_once = 3
    """The card is free at once, and jobs without a picture are given back."""


@dataclass(frozen=True, slots=True)
class PauseReason:
    """One of the reasons that there are at a time."""

    cause: PauseCause
    told: str
    """For the owner, with the remedy where there is one."""
    kind: PauseKind
    until: float | None = None
    """When it will be over, in seconds since 1970 UTC; null where nobody knows."""
    device: str = ""
    """The one that it is for, by its name; "" is for all."""
