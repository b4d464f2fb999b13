"""What CivitAI said, remembered over restarts, so that nobody is asked twice."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from hordelib.errors import DownloadRefused
from hordelib.files.json_file import JsonFile

_MOST_ENTRIES = 10_000
_LONGEST_SECONDS = 7 * 86400.0  # of any word: what counts for longer is of a clock that was ahead


@dataclass(frozen=True, slots=True)
class _Word:
    """`version_id` is what was found; 0 where it was refused for `reason`."""

    until: float  # seconds since 1970
    version_id: int = 0
    reason: str = ""

    def counts_at(self, now: float) -> bool:
        return 0 < self.until - now <= _LONGEST_SECONDS


_WORDS = TypeAdapter(dict[str, _Word])


class DownloadMemo:
    """Answers by what was asked, while they count. A damaged file is begun anew."""

    def __init__(self, path: Path, *, now: Callable[[], float] = time.time):
        self._file = JsonFile(path, _WORDS)
        self._now = now
        self._lock = threading.Lock()
        self._words = self._file.read() or {}

    def raise_if_refused(self, key: str) -> None:
        """Raises the DownloadRefused that `key` got, while it counts."""
        word = self._word(key)
        if word is not None and not word.version_id:
            left_seconds = word.until - self._now()
            raise DownloadRefused(f"{word.reason}, as it was before", left_seconds)

    def version(self, key: str) -> int:
        """The version that `key` means, while that counts; else 0."""
        word = self._word(key)
        return word.version_id if word else 0

    def remember_refusal(self, key: str, refused: DownloadRefused) -> None:
        """Keep a refusal for as long as it says; one of 0 seconds is not kept."""
        if refused.valid_seconds > 0:
            self._keep(key, _Word(self._now() + refused.valid_seconds, reason=str(refused)))

    def remember_version(self, key: str, version_id: int, valid_seconds: float) -> None:
        self._keep(key, _Word(self._now() + valid_seconds, version_id))

    def _word(self, key: str) -> _Word | None:
        with self._lock:
            word = self._words.get(key)
        return word if word is not None and word.counts_at(self._now()) else None

    def _keep(self, key: str, fresh: _Word) -> None:
        now = self._now()
        with self._lock:
            words = {name: word for name, word in self._words.items() if word.counts_at(now)}
            words = {**words, key: fresh}
            self._words = dict(list(words.items())[-_MOST_ENTRIES:])
            self._file.keep(self._words)  # or it counts until the worker ends
