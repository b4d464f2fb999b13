"""What measured peaks of memory came to, in multiples of the estimates; kept from run to run."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from hordelib.files.whole_files import write_whole

log = logging.getLogger(__name__)

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
        self._factors = self._read()
        self._written = dict(self._factors)

    def of(self, name: str) -> float:
        return self._factors.get(name, 1.0)

    def put(self, name: str, factor: float) -> None:
        self._factors[name] = min(max(factor, LEAST), MOST)
        if abs(self._factors[name] - self._written.get(name, 1.0)) > WORTH_WRITING:
            self._write()

    def _read(self) -> dict[str, float]:
        try:
            content = _CONTENT.validate_json(self.file.read_bytes()) if self.file else None
        except FileNotFoundError:
            return {}
        except (OSError, ValidationError) as error:
            log.warning("%s: not used, memory is learnt anew: %s", self.file, error)
            return {}
        return dict(content.factors) if content and content.device == self.device else {}

    def _write(self) -> None:
        self._written = dict(self._factors)
        if self.file is None:
            return
        try:
            write_whole(self.file, _CONTENT.dump_json(_Content(self.device, self._factors)))
        except OSError as error:
            log.warning("%s: %s; what was learnt of memory is lost at the end", self.file, error)
