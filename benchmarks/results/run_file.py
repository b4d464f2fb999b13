"""A run of a benchmark as its JSON file has it, checked once: past `read_run` there is only `Run`.

Which figures of a row say what was measured, its features, is in `FEATURES`: all else came of it.
So a row can be matched with its like of another run, whatever happened in either.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, Field, StrictInt, ValidationError

from benchmarks.results.document import SCHEMA, BadInput, Document, flat
from benchmarks.results.figures import in_units, unit_name

Figures = Mapping[str, Any]  # of one row, named `outer.inner`
FEATURES: Mapping[str, tuple[str, ...]] = {  # of each bench; a group's name stands for all in it
    "engine": ("model", "family", "job"),
    "worker": ("workload", "latency_ms"),
    "forms": ("what", "beside"),
    "compare": ("work", "peer"),
    "scale": ("kind", "jobs", "queue_size", "devices", "job_ms"),
    "memory": ("model", "family", "side", "images"),
    "switch": ("model",),
    "judge": ("judges", "side"),
    "pages": ("pages",),
    "seconds": ("model", "rounds", "learnt", "jobs"),
    "tune": ("key",),
    "card": ("step", "what", "unit"),
}
NUMBER_GROUPS = frozenset({"phases", "percent"})
NUMBERS = frozenset(  # the last words of names whose figures are numbers, beside all with `per`
    {
        *("bytes", "seconds", "ms", "percent", "watts", "mhz", "celsius"),
        *("width", "height", "side", "steps", "chunks", "loras", "together", "images"),
        *("jobs", "faulted", "size", "devices", "threads", "files", "rounds", "learnt"),
        *("repeats", "reads", "ratio", "difference"),
    }
)
MOST = 10**18  # of any unit: more is not measured, nor can it be drawn
DIVISORS = frozenset({"job.images", "job.together"})


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

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the figures that say what was measured, as far as any row has them."""
        known = FEATURES[self.bench]
        names = dict.fromkeys(name for row in self.rows for name in row)
        return tuple(name for name in names if name in known or name.partition(".")[0] in known)

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
    run = _run(path)
    wrong = next(_faults(run), None)
    if wrong:
        raise BadInput(f"{path}: {wrong}")
    return run


def _run(path: Path) -> Run:
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


def _faults(run: Run) -> Iterator[str]:
    """What is wrong with its rows, each in a line that names the row and the figure."""
    if run.bench not in FEATURES:
        yield f"no benchmark of this version is called {run.bench!r} ({', '.join(FEATURES)})"
        return
    features = run.features
    for number, row in enumerate(run.rows, start=1):
        if not any(name in row for name in features):
            yield f"row {number} does not say what was measured: {', '.join(FEATURES[run.bench])}"
        for name, value in row.items():
            expected = _expected(name, value, is_feature=name in features)
            if expected:
                yield f"row {number}, {name}: {value!r:.60} is no {expected}"


def _expected(name: str, value: object, *, is_feature: bool) -> str:
    """What this figure should be, where it is something else; a figure may also be missing."""
    if name in DIVISORS and not (isinstance(value, int) and value > 0):
        return "whole number above 0"
    if value is not None and _is_numeric(name) and not is_number(value):
        return "number"
    if isinstance(value, int | float) and not abs(value) < MOST:
        return f"number under {MOST:.0e}"
    if is_feature and not isinstance(value, str | int | float | None):
        return "word or number"
    return ""


def _is_numeric(name: str) -> bool:
    group, _, last = name.rpartition(".")
    words = last.split("_")
    return group in NUMBER_GROUPS or words[-1] in NUMBERS or "per" in words


def differing(rows: Iterable[Figures], names: Iterable[str]) -> tuple[str, ...]:
    """Those of these figures that are not the same in all rows."""
    rows = tuple(rows)
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
