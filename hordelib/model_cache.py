"""Model files kept in main memory for as long as the budget allows, lent out under one mutex."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from hordelib.errors import ModelMissing, OutOfMemory

log = logging.getLogger(__name__)

Model = TypeVar("Model")


@dataclass(frozen=True, slots=True)
class MemoryBudget:
    """How much memory models may take. Reads the machine, never changes it."""

    free_bytes: Callable[[], int]
    reserve_bytes: int  # stays free for other programs

    def shortfall_bytes(self, needed_bytes: int) -> int:
        return max(0, needed_bytes + self.reserve_bytes - self.free_bytes())


@dataclass(frozen=True, slots=True)
class ModelKey:
    """One file, read in one way. `variant` tells apart what the same reader makes of it."""

    kind: str
    path: Path
    variant: str = ""


@dataclass(slots=True)
class _Entry(Generic[Model]):
    model: Model
    loans: int = 0


class ModelCache(Generic[Model]):
    """Lends models by file. A model on loan stays; idle ones go, least recently used first.

    `load` reads a file; `forget` is called after an entry was dropped, to give its memory back.
    """

    def __init__(
        self,
        load: Callable[[ModelKey], Model],
        budget: MemoryBudget,
        forget: Callable[[], None] = lambda: None,
    ):
        self._load = load
        self._budget = budget
        self._forget = forget
        self._mutex = threading.RLock()
        self._entries: dict[ModelKey, _Entry[Model]] = {}  # least recently used first

    @contextmanager
    def lend(self, key: ModelKey) -> Generator[Model]:
        """The model of this file, in memory until the block ends.

        Raises ModelMissing, what `load` raises, and OutOfMemory when the file does not fit although
        every idle model is gone.
        """
        with self._mutex:
            entry = self._entries.pop(key, None) or self._read(key)
            self._entries[key] = entry
            entry.loans += 1
        try:
            yield entry.model
        finally:
            with self._mutex:
                entry.loans -= 1

    def holds(self, key: ModelKey) -> bool:
        with self._mutex:
            return key in self._entries

    def clear(self) -> None:
        """Drop every idle model."""
        with self._mutex:
            for key in [key for key, entry in self._entries.items() if not entry.loans]:
                self._drop(key)

    def _read(self, key: ModelKey) -> _Entry[Model]:
        if not key.path.exists():
            raise ModelMissing(f"{key.path.name}: no such file in {key.path.parent}")
        self._make_room(key.path)
        return _Entry(self._load(key))

    def _make_room(self, path: Path) -> None:
        """Drop idle models until the machine itself reports room for the file."""
        needed_bytes = _size_bytes(path)
        idle = [key for key, entry in self._entries.items() if not entry.loans]
        while (shortfall_bytes := self._budget.shortfall_bytes(needed_bytes)) > 0:
            if not idle:
                raise OutOfMemory(
                    f"{path.name} needs {needed_bytes >> 20} MiB of RAM, and"
                    f" {shortfall_bytes >> 20} MiB are missing with {_mib(self._budget)} MiB left"
                    " free: use a smaller model or lower ram_to_leave_free"
                )
            self._drop(idle.pop(0))

    def _drop(self, key: ModelKey) -> None:
        log.info("dropping %s from memory", key.path.name)
        del self._entries[key]
        self._forget()


def _size_bytes(path: Path) -> int:
    """Of a file, or of all files of a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _mib(budget: MemoryBudget) -> int:
    return budget.reserve_bytes >> 20
