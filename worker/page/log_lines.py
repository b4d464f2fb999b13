"""The last lines of the log, for the page: bounded, and without the owner's secrets."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import TypedDict

from hordelib.texts import harmless

MOST_LINES = 2000
LONGEST_LINE = 2000  # characters
HIDDEN = "<secret>"


class LogLine(TypedDict):
    number: int
    at: float
    level: str
    text: str


class LogLines(logging.Handler):
    """Any thread may log; it neither waits for a reader nor raises."""

    def __init__(self, secrets: Sequence[str]):
        super().__init__(logging.INFO)
        self._secrets = tuple(secret for secret in secrets if secret)
        self._lines: deque[LogLine] = deque(maxlen=MOST_LINES)
        self._reading = threading.Lock()
        self.count = 0
        """Lines since the start, those included that are kept no more."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
        except Exception:  # noqa: BLE001 - a wrong log call must not end what was logged
            text = str(record.msg)
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        with self._reading:
            self.count += 1
            self._lines.append(
                LogLine(
                    number=self.count,
                    at=record.created,
                    level=record.levelname,
                    text=harmless(text[:LONGEST_LINE]),
                )
            )

    def since(self, number: int) -> list[LogLine]:
        """Those after it that are kept, oldest first."""
        with self._reading:
            missing = max(self.count - number, 0)
            kept = len(self._lines)
            return list(islice(self._lines, max(kept - missing, 0), kept))
