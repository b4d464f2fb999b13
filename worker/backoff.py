"""How long to wait before asking again."""

from __future__ import annotations

import random

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
