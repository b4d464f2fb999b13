"""What measured peaks of memory came to, in multiples of the estimates; kept from run to run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from hordelib.files.json_file import JsonFile
from hordelib.files.whole_files import write_whole

LEAST, MOST = 0.02, 4.0
WORTH_WRITING = 0.02  # of change since the last time


@dataclass(frozen=True, slots=True)
class _Content:
    device: str
    factors: Mapping[str, Annotated[float, Field(ge=LEAST, le=MOST)]]
    version: Literal[1] = 1


_CONTENT = TypeAdapter(_Content)


@dataclass(slots=True, eq=False)
class Corrections:
    """Factors by the name of what they are for; 1 until something was measured.

    `device` names what was measured on: with another one, all begins anew. Without a `file` they
    are forgotten at the end. A file that can't be read or written is told, and no error.
    """

    device: str
    file: Path | None = None
    _factors: dict[str, float] = field(init=False)
    _written: dict[str, float] = field(init=False)

    def __post_init__(self) -> None:
        kept = self._kept.read() if self._kept else None
        self._factors = dict(kept.factors) if kept and kept.device == self.device else {}
        self._written = dict(self._factors)

    def of(self, name: str) -> float:
        return self._factors.get(name, 1.0)

    def put(self, name: str, factor: float) -> None:
        self._factors[name] = min(max(factor, LEAST), MOST)
        if abs(self._factors[name] - self._written.get(name, 1.0)) > WORTH_WRITING:
            self._write()

    def _write(self) -> None:
        self._written = dict(self._factors)
        if self._kept:
            self._kept.keep(_Content(self.device, self._factors))

    @property
    def _kept(self) -> JsonFile[_Content] | None:
        what = "what was learnt of memory"
        return JsonFile(self.file, _CONTENT, what, write_whole) if self.file else None
