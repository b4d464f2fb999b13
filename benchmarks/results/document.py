"""What a benchmark leaves behind: one JSON document, and files that are never half written."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.measure.machine import Hardware
from hordelib.files.whole_files import move_over

if TYPE_CHECKING:
    from _typeshed import DataclassInstance as Row
else:
    Row = object

SCHEMA = 1
Document = dict[str, Any]


class BadInput(Exception):
    """What the user asked for can't be done; one line that says why."""


def row_figures(row: Row) -> dict[str, Any]:
    """A row as JSON has it: its fields, and its properties, which are figures too."""
    properties = [name for name, value in vars(type(row)).items() if isinstance(value, property)]
    return {**asdict(row), **{name: getattr(row, name) for name in properties}}


def flat(figures: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested figures, named `outer.inner`."""
    for name, value in figures.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")  # pyright: ignore[reportUnknownArgumentType]
        else:
            yield prefix + name, value


def document(
    bench: str,
    rows: list[Row],
    arguments: Mapping[str, Any],
    started: datetime,
    made_by: tuple[Hardware, str, str | None],
) -> Document:
    """`made_by`: the machine, Dreamer's version and the commit, as they were at the start."""
    hardware, version, commit = made_by
    return {
        "schema": SCHEMA,
        "bench": bench,
        "commit": commit,
        "dreamer": version,
        "started": started.isoformat(timespec="seconds"),
        "seconds": round((datetime.now(UTC) - started).total_seconds(), 3),
        "hardware": asdict(hardware),
        "arguments": dict(arguments),
        "results": [row_figures(row) for row in rows],
    }


def to_json(document: Document) -> str:
    return json.dumps(document, indent=1, default=str) + "\n"


def check_writable(path: Path) -> None:
    """Raises BadInput where a file of this name could not be written."""
    if path.is_dir():
        raise BadInput(f"{path} is a folder")
    if path.exists() and not path.is_file():
        raise BadInput(f"{path} is no file that could be replaced")
    if not path.resolve().parent.is_dir():
        raise BadInput(f"the folder {path.parent} does not exist")
    partial = _partial(path)
    try:
        partial.touch()
        partial.unlink()
    except OSError as error:
        raise BadInput(f"{path} can't be written: {error.strerror}") from error


def write(path: Path, text: str) -> None:
    """Atomic: a kill leaves the file that was there, or none. Raises BadInput on a full disk."""
    partial = _partial(path)
    try:
        partial.write_text(text, "utf-8")
        move_over(partial, path.resolve())
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise BadInput(f"{path} can't be written: {error.strerror}") from error


def _partial(path: Path) -> Path:
    """Beside the file itself, where `path` is a link to it."""
    file = path.resolve()
    return file.with_name(f".{file.name}.partial")
