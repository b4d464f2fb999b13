"""The file of what was learnt about the seconds of jobs: one machine's, for its owner alone."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from hordelib.files.json_file import JsonFile
from hordelib.files.whole_files import write_whole

log = logging.getLogger(__name__)

NAME = "seconds.json"  # in the state folder

_Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Error = Annotated[float, Field(allow_inf_nan=False)]


@dataclass(frozen=True, slots=True)
class TimedJob:
    """What there was to do, and how long it took."""

    work: Mapping[str, _Amount]
    seconds: _Seconds


@dataclass(frozen=True, slots=True)
class Learnt:
    """Of one family: its jobs, the oldest first, and the logarithms of the predictions' errors."""

    jobs: tuple[TimedJob, ...] = ()
    errors: tuple[_Error, ...] = ()


@dataclass(frozen=True, slots=True)
class _Content:
    device: str
    families: Mapping[str, Learnt]
    version: Literal[1] = 1


_CONTENT = TypeAdapter(_Content)


@dataclass(frozen=True, slots=True)
class SecondsFile:
    """`device` names what the seconds were measured on: with another one, all begins anew."""

    path: Path
    device: str

    def read(self) -> Mapping[str, Learnt]:
        """By family; nothing, said in one line, where the file can't be used."""
        content = self._kept.read()
        if content is None:
            return {}
        if content.device != self.device:
            log.info("seconds are learnt anew: they were those of %s", content.device)
            return {}
        return content.families

    def write(self, families: Mapping[str, Learnt]) -> None:
        """At once or not at all; a disk that can't be written is no error."""
        self._kept.keep(_Content(self.device, families))

    @property
    def _kept(self) -> JsonFile[_Content]:
        return JsonFile(self.path, _CONTENT, "what was learnt of seconds", write_whole)
