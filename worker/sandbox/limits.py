"""Rate limits: so many calls per window, answered with 429 beyond."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from worker.sandbox.errors import TooFast
from worker.sandbox.faults import Endpoint


class Limit(NamedTuple):
    calls: int
    seconds: int

    def __str__(self) -> str:
        minutes, seconds = divmod(self.seconds, 60)
        return (
            f"{self.calls} per {seconds} second"
            if seconds
            else f"{self.calls} per {minutes} minute"
        )


class Window(NamedTuple):
    opened_at: float
    calls: int


# The server's limits. `check` and `status` are counted per URL, the others per address.
SERVER_LIMITS: Mapping[Endpoint, Limit] = {
    Endpoint.CHECK: Limit(10, 1),
    Endpoint.STATUS: Limit(10, 60),
    Endpoint.ASYNC: Limit(2, 1),
    Endpoint.POP: Limit(60, 1),
    Endpoint.SUBMIT: Limit(60, 1),
    Endpoint.FORM_STATUS: Limit(10, 1),
    Endpoint.TEXT_STATUS: Limit(60, 60),
}
# What the sandbox enforces unless told otherwise: a test posts and pops as fast as it can.
DEFAULT_LIMITS: Mapping[Endpoint, Limit] = {
    endpoint: SERVER_LIMITS[endpoint]
    for endpoint in (Endpoint.CHECK, Endpoint.STATUS, Endpoint.FORM_STATUS, Endpoint.TEXT_STATUS)
}


class RateLimiter:
    """Counts calls in fixed windows of the injected clock. Used from one thread."""

    def __init__(self, limits: Mapping[Endpoint, Limit], clock: Callable[[], float]):
        self._limits = dict(limits)
        self._clock = clock
        self._windows: dict[tuple[Endpoint, str], Window] = {}

    def admit(self, endpoint: Endpoint, caller: str) -> dict[str, str]:
        """Count a call. Headers for its reply; raises TooFast beyond an enforced limit."""
        limit = self._limits.get(endpoint) or SERVER_LIMITS.get(endpoint)
        if limit is None:
            return {}
        window = self._count(endpoint, caller, limit)
        headers = _headers(limit, window, self._clock())
        if endpoint in self._limits and window.calls > limit.calls:
            raise TooFast(str(limit), headers)
        return headers

    def _count(self, endpoint: Endpoint, caller: str, limit: Limit) -> Window:
        now = self._clock()
        window = self._windows.get((endpoint, caller), Window(now, 0))
        if now - window.opened_at >= limit.seconds:
            window = Window(now, 0)
        window = window._replace(calls=window.calls + 1)
        self._windows[endpoint, caller] = window
        return window


def _headers(limit: Limit, window: Window, now: float) -> dict[str, str]:
    """The server sends these with successes too, Retry-After included."""
    reset = window.opened_at + limit.seconds
    return {
        "Retry-After": str(max(1, round(reset - now))),
        "X-Ratelimit-Limit": str(limit.calls),
        "X-Ratelimit-Remaining": str(max(0, limit.calls - window.calls)),
        "X-Ratelimit-Reset": str(int(reset) + 1),
    }
