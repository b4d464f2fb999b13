"""How many tokens a second the text server writes, and what follows for time limits."""

from __future__ import annotations

import threading
from collections import deque

from worker.horde.texts import TEXT_SECONDS

_SAMPLES = 8
START_SECONDS = 30.0  # of a text, for its prompt and for other texts before it
_PATIENCE = 3.0  # times the expected seconds
LEAST_LENGTH = 16  # tokens: the horde's shortest text


class TextSpeed:
    """Learns from texts that were written. Any thread may use it."""

    def __init__(self, start_seconds: float = START_SECONDS):
        self._start_seconds = start_seconds
        self._lock = threading.Lock()
        self._samples = deque[float](maxlen=_SAMPLES)

    def learn(self, tokens: int, seconds: float) -> None:
        if tokens >= LEAST_LENGTH and seconds > 0:
            with self._lock:
                self._samples.append(tokens / seconds)

    @property
    def tokens_per_second(self) -> float | None:
        """The median of the latest texts; None before the first."""
        with self._lock:
            ordered = sorted(self._samples)
        return ordered[len(ordered) // 2] if ordered else None

    def most_seconds(self, tokens: int) -> float:
        """That a text may take of which nothing is seen until it is done."""
        speed = self.tokens_per_second
        return self._start_seconds + _PATIENCE * tokens / speed if speed else float(TEXT_SECONDS)

    def longest(self, wanted: int) -> int:
        """So many tokens of those wanted are written within the horde's time."""
        speed = self.tokens_per_second
        if speed is None:
            return wanted
        return max(LEAST_LENGTH, min(wanted, int(speed * (TEXT_SECONDS - self._start_seconds))))
