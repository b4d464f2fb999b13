"""Which model or client's file is suspected when jobs end badly: the engine dies, or they fail.

A file is a LoRA or a textual inversion.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Collection, Hashable
from dataclasses import dataclass, field
from pathlib import Path

DEATHS = 3  # of the engine, until the one that they have in common is not used any more
FAILURES = 3  # of different jobs one after the other, until their model is accused


@dataclass(frozen=True, slots=True)
class Blamed:
    """What has reached its last death with this one."""

    model: str = ""
    files: tuple[Path, ...] = ()


@dataclass(slots=True)
class _Count:
    """What speaks against one model or file."""

    deaths: int = 0
    jobs: set[Hashable] = field(default_factory=set[Hashable])

    @property
    def is_closed(self) -> bool:
        """No single job convicts anybody, however often it comes."""
        return self.deaths >= DEATHS and len(self.jobs) > 1

    def add(self, job: Hashable) -> None:
        self.deaths += 1
        self.jobs.add(job)


class CrashCounts:
    """Counts what ended badly by what was at work; a job that goes well clears what it used.

    A file is suspected before the model: deaths with one and the same set of files count only once
    against the model. A model is no more than accused: the prompts may be at fault as well. The
    threads of all devices count here.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._models: dict[str, _Count] = defaultdict(_Count)
        self._files: dict[Path, _Count] = defaultdict(_Count)
        self._failures: dict[str, set[Hashable]] = defaultdict(set)

    def died(self, model: str, files: Collection[Path], job: Hashable) -> Blamed:
        """The engine died over a job with these; `job` is the same when that job comes again."""
        used = frozenset(files)
        with self._lock:
            for file in used:
                self._files[file].add(job)
            if not used or used not in self._models[model].jobs:
                self._models[model].add(used or job)
            return Blamed(
                model if self._models[model].is_closed else "",
                tuple(file for file in used if self._files[file].is_closed),
            )

    def failed(self, model: str, job: Hashable) -> bool:
        """A job of the model failed; whether that was one too many, and the model is accused.

        `job` is the same when that job comes again.
        """
        with self._lock:
            self._failures[model].add(job)
            return len(self._failures[model]) >= FAILURES

    def did_well(self, model: str, files: Collection[Path]) -> None:
        self.acquit(model)
        with self._lock:
            for file in files:
                self._files.pop(file, None)

    def acquit(self, model: str) -> None:
        with self._lock:
            self._models.pop(model, None)
            self._failures.pop(model, None)
