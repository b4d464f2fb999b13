"""Files beside models (of ControlNets, post-processors and so on) that turned out to be broken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hordelib.files.model_key import FileStamp
from worker.models.changes import stamp_of


@dataclass(frozen=True, slots=True)
class _Broken:
    stamp: FileStamp | None  # None: there was no such file
    reason: str


class BrokenFiles:
    """Any thread may call. A file is no longer broken once it is another one."""

    def __init__(self) -> None:
        self._known: Mapping[Path, _Broken] = {}

    def add(self, path: Path, reason: str) -> None:
        self._known = {**self._known, path: _Broken(stamp_of(path), reason)}

    def why(self, path: Path) -> str:
        """Why the file can't be used; "" where nothing is known against it."""
        broken = self._known.get(path)
        return broken.reason if broken and stamp_of(path) == broken.stamp else ""

    @property
    def paths(self) -> frozenset[Path]:
        return frozenset(path for path in self._known if self.why(path))
