"""A run of a benchmark as its JSON file has it, checked once: past `read_run` there is only `Run`.

What its figures are is told by the rows themselves: numbers with fractions and sizes in bytes are
results; all else says what was measured, but for the few names in `NO_FEATURES`. So rows of any
bench can be matched with those of another run.
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
        *("now", "proposed"),
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


def feature_names(rows: Iterable[Figures]) -> tuple[str, ...]:
    """The figures that say what was measured, and are no results, in any of these rows."""
    names: dict[str, bool] = {}
    for row in rows:
        for name, value in row.items():
            names[name] = names.get(name, True) and not _is_result(name, value)
    return tuple(name for name, is_feature in names.items() if is_feature)


def _is_result(name: str, value: object) -> bool:
    is_named_so = name.endswith("_bytes") or name.rpartition(".")[2] in NO_FEATURES
    return isinstance(value, float) or is_named_so


def differing(rows: Iterable[Figures]) -> tuple[str, ...]:
    """Names of the features that are not the same in all rows."""
    rows = tuple(rows)
    names = feature_names(rows)
    return tuple(name for name in names if len({repr(row.get(name)) for row in rows}) > 1)


def label(row: Figures, names: Iterable[str]) -> str:
    """A row's features of these names in words."""
    return ", ".join(filter(None, (_told(name, row.get(name)) for name in names)))


def _told(name: str, value: object) -> str:
    """A word speaks for itself, a number needs its name, and what there is none of is not told."""
    if not value or isinstance(value, str):
        return str(value or "")
    if value is True:
        return unit_name(name.rpartition(".")[2])
    return f"{unit_name(name.rpartition('.')[2])} {in_units(name, value)}"
