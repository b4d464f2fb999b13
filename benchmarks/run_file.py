"""A run of a benchmark as its JSON file has it, checked once: past `read_run` there is only `Run`.

What a row's figures are is told by themselves: numbers with fractions and sizes in bytes were
measured; all else says what was measured. So rows of any bench can be matched with another run's.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, Field, StrictInt, ValidationError

from benchmarks.document import SCHEMA, BadInput, Document, flat
from benchmarks.figures import in_units, unit_name

Figures = Mapping[str, Any]  # of one row, named `outer.inner`
NO_FEATURES = frozenset(  # words and whole numbers that are results all the same
    {
        *("repeats", "split", "error", "reason", "faulted", "threads", "files", "reads"),
        "most_pixel_difference",
    }
)


class _File(BaseModel):
    """A document of this schema."""

    bench: str
    started: str
    seconds: float
    dreamer: str
    commit: str | None = None
    hardware: dict[str, Any]
    arguments: dict[str, Any]
    results: list[dict[str, Any]] = Field(min_length=1)


class _Schema(BaseModel):
    number: StrictInt = Field(alias="schema")


@dataclass(frozen=True, slots=True)
class Run:
    """One run: what was measured, when, on and with what. Nested figures are flat."""

    bench: str
    started: str
    seconds: float
    dreamer: str
    commit: str | None
    hardware: Figures
    arguments: Figures
    rows: tuple[Figures, ...]

    @classmethod
    def of(cls, document: Document) -> Self:
        """Raises pydantic's ValidationError where the document is no run."""
        file = _File.model_validate(document)
        return cls(
            bench=file.bench,
            started=file.started,
            seconds=file.seconds,
            dreamer=file.dreamer,
            commit=file.commit,
            hardware=dict(flat(file.hardware)),
            arguments=dict(flat(file.arguments)),
            rows=tuple(dict(flat(row)) for row in file.results),
        )


def read_run(path: Path) -> Run:
    """Raises BadInput, with a line that names the file and what is wrong with it."""
    document = _parsed(path)
    try:
        schema = _Schema.model_validate(document).number
    except ValidationError as error:
        raise BadInput(f"{path}: no results of a benchmark (no `schema` in it)") from error
    if schema != SCHEMA:
        raise BadInput(f"{path}: has schema {schema}, and this version reads schema {SCHEMA}")
    try:
        return Run.of(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadInput(f"{path}: no results of a benchmark ({where}: {first['msg']})") from error


def _parsed(path: Path) -> Document:
    try:
        return json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise BadInput(f"{path}: no JSON ({error})") from error


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_measured(name: str, value: object) -> bool:
    """Whether a figure is a result; else it is a feature, which says what was measured."""
    if value is None or isinstance(value, float) or name.endswith("_bytes"):
        return True
    return name.rpartition(".")[2] in NO_FEATURES


def features(row: Figures) -> Figures:
    return {name: value for name, value in row.items() if not is_measured(name, value)}


def label(row: Figures, names: Iterable[str]) -> str:
    """What is special about a row: those of its features that differ among its kind."""
    told = (_told(name, row[name]) for name in names if name in row)
    return ", ".join(filter(None, told)) or "all"


def differing(rows: Iterable[Figures]) -> tuple[str, ...]:
    """Names of the features that are not the same in all rows."""
    rows = [features(row) for row in rows]
    names = dict.fromkeys(name for row in rows for name in row)
    return tuple(name for name in names if len({repr(row.get(name)) for row in rows}) > 1)


def _told(name: str, value: object) -> str:
    """A word speaks for itself; a number needs its name, and what is not there is not told."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return unit_name(name.rpartition(".")[2]) * value
    return f"{unit_name(name.rpartition('.')[2])} {in_units(name, value)}"
