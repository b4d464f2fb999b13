"""Trouble on demand: what a worker or client has to survive, switched on per call.

sandbox.faults.inject(Endpoint.SUBMIT, LostReply(), calls=2)
sandbox.faults.inject(Endpoint.CHECK, Reply(503), probability=0.1, seed=7)
sandbox.faults.inject(Endpoint.POP, Latency(0.2))
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from threading import Lock


class Endpoint(StrEnum):
    """Each call that the sandbox answers, by the name under which faults and books know it."""

    ASYNC = "async"
    CHECK = "check"
    STATUS = "status"
    CANCEL = "cancel"
    POP = "pop"
    SUBMIT = "submit"
    UPLOAD = "upload"
    IMAGE = "image"
    SOURCE = "source"
    HEARTBEAT = "heartbeat"
    MODELS = "models"
    PERFORMANCE = "performance"
    NEWS = "news"
    MODES = "modes"
    SWAGGER = "swagger"
    FIND_USER = "find_user"
    WORKERS = "workers"
    WORKER = "worker"
    MODIFY_WORKER = "modify_worker"
    TEAMS = "teams"
    FORM_ASYNC = "interrogate/async"
    FORM_STATUS = "interrogate/status"
    FORM_CANCEL = "interrogate/cancel"
    FORM_POP = "interrogate/pop"
    FORM_SUBMIT = "interrogate/submit"
    TEXT_ASYNC = "text/async"
    TEXT_STATUS = "text/status"
    TEXT_CANCEL = "text/cancel"
    TEXT_POP = "text/pop"
    TEXT_SUBMIT = "text/submit"


@dataclass(frozen=True, slots=True)
class Latency:
    """The call is answered as usual, later."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Reply:
    """An error instead of any work, with what the server writes into one.

    429 and 503 may say when to come back; `rc` and `errors` are left out where they are None.
    """

    status: int
    retry_after_seconds: int | None = None
    message: str = "Injected fault"
    rc: str | None = None
    errors: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Redirect:
    """The caller is sent elsewhere; no work is done."""

    location: str
    status: int = 307


@dataclass(frozen=True, slots=True)
class Html:
    """A proxy's error page where JSON is expected; no work is done."""

    status: int = 502


@dataclass(frozen=True, slots=True)
class Disconnect:
    """The connection is closed before any work is done."""


@dataclass(frozen=True, slots=True)
class LostReply:
    """The work is done, then the connection is closed without a reply."""


@dataclass(frozen=True, slots=True)
class CutShort:
    """The reply announces its full length and stops half way."""


@dataclass(frozen=True, slots=True)
class HalfHeader:
    """The work is done, then the connection is closed in the middle of the reply's headers."""


@dataclass(frozen=True, slots=True)
class HandedOutAgain:
    """A pop is answered as the last one that brought a job, with the same ids; no work is done."""


@dataclass(frozen=True, slots=True)
class NamedTwice:
    """The reply to a pop names each id, and its upload address, twice."""


class Part(StrEnum):
    """What comes byte by byte, and never to an end."""

    REQUEST = "request"  # a long body, as the server reads it
    HEADERS = "headers"
    BODY = "body"


@dataclass(frozen=True, slots=True)
class Drip:
    """One part of the call drips until the caller leaves; no work is done."""

    part: Part
    pause_seconds: float = 0.02


Effect = (
    Latency
    | Reply
    | Redirect
    | Html
    | Disconnect
    | LostReply
    | CutShort
    | HalfHeader
    | HandedOutAgain
    | NamedTwice
    | Drip
)


class Faults:
    """What goes wrong next. Thread-safe. At most one effect besides latency hits one call."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._armed: list[_Armed] = []

    def inject(
        self,
        endpoint: Endpoint | str,
        effect: Effect,
        *,
        calls: int | None = None,
        probability: float = 1.0,
        seed: int = 0,
    ) -> None:
        """Let `effect` hit calls of `endpoint`.

        `calls` ends it after that many hits; None lasts until `clear`. With a `probability`, each
        call is a draw from a generator seeded with `seed`. Raises ValueError for an unknown
        endpoint.
        """
        draw = random.Random(seed).random
        armed = _Armed(Endpoint(endpoint), effect, calls, probability, draw)
        with self._lock:
            self._armed.append(armed)

    def clear(self, endpoint: Endpoint | str | None = None) -> None:
        """End the faults of one endpoint, or all."""
        with self._lock:
            self._armed = [row for row in self._armed if endpoint not in (None, row.endpoint)]

    def draw(self, endpoint: Endpoint) -> tuple[float, Effect | None]:
        """For one call: seconds to wait first, and the effect that hits it."""
        with self._lock:
            seconds, effect = 0.0, None
            for row in self._armed:
                if effect is not None and not isinstance(row.effect, Latency):
                    continue
                if row.endpoint is not endpoint or not row.hits():
                    continue
                if isinstance(row.effect, Latency):
                    seconds += row.effect.seconds
                else:
                    effect = row.effect
            self._armed = [row for row in self._armed if row.calls != 0]
            return seconds, effect


@dataclass(slots=True)
class _Armed:
    endpoint: Endpoint
    effect: Effect
    calls: int | None
    probability: float
    chance: Callable[[], float]

    def hits(self) -> bool:
        if self.calls == 0 or self.chance() >= self.probability:
            return False
        if self.calls is not None:
            self.calls -= 1
        return True
