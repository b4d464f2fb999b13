"""How long to wait before asking again."""

from __future__ import annotations

import random
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

MOST_SECONDS = 600.0  # of what a server asks for: who asks for a day made a mistake


class Backoff:
    """Delays that double from `first` to `cap` seconds, each shortened at random by up to half.

    The chance keeps many workers from coming back at the same moment after an outage.
    """

    def __init__(self, first: float, cap: float):
        self._first = first
        self._cap = cap
        self._next = first

    def delay(self, at_least: float | None = None) -> float:
        """Seconds to wait now; `at_least` is what the server asked for."""
        delay = self._next * random.uniform(0.5, 1.0)
        self._next = min(self._next * 2, self._cap)
        return max(delay, min(at_least or 0.0, MOST_SECONDS))

    def reset(self) -> None:
        """Start over, after something worked."""
        self._next = self._first


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """The wait that an answer asks for; None where it names none that makes sense.

    A date is compared with the answer's own: this machine's clock may be wrong.
    """
    asked = headers.get("Retry-After", "")
    if asked.isdecimal():
        return float(asked)
    try:
        until = parsedate_to_datetime(asked)
        return max(0.0, (until - parsedate_to_datetime(headers["Date"])).total_seconds())
    except (ValueError, KeyError, TypeError, OverflowError):
        return None
