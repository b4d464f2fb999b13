"""What the worker has done, hour by hour, for months and over restarts: a small file of counts.

No prompt, picture or id is in it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from worker.horde.kinds import Kind
from worker.jobs.durable_sqlite import Change, DurableSqlite
from worker.jobs.results import ENDS, JobStage
from worker.jobs.sqlite_format import Format
from worker.jobs.status import JobRow, StatusView

FILE = "history.sqlite"
HOUR = 3600
WRITE_SECONDS = 60.0  # between two writes; a killed worker loses no more than that
MOST_HOURS = 24 * 40  # rows that are kept: a month and a bit, while the worker runs
MOST_REASONS = 20  # of faults in an hour; reasons may hold strangers' words
LONGEST_REASON = 100  # characters
OTHERS = "other reasons"
_QUOTED = re.compile(r'"[^"]*"')  # what a text server said, which may repeat a prompt
LONGEST_GAP = 10.0  # seconds between two looks; after more, the machine slept, and nothing was up

_TABLES = """
CREATE TABLE hours (
    written INTEGER PRIMARY KEY AUTOINCREMENT,
    hour INTEGER NOT NULL UNIQUE,
    images INTEGER NOT NULL DEFAULT 0,
    failed INTEGER NOT NULL DEFAULT 0,
    kudos REAL NOT NULL DEFAULT 0,
    busy_seconds REAL NOT NULL DEFAULT 0,
    up_seconds REAL NOT NULL DEFAULT 0,
    megapixelsteps REAL NOT NULL DEFAULT 0
);
CREATE TABLE faults (
    hour INTEGER, reason TEXT, images INTEGER NOT NULL,
    PRIMARY KEY (hour, reason)
);
"""
_KINDS = """
ALTER TABLE hours ADD COLUMN forms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE hours ADD COLUMN texts INTEGER NOT NULL DEFAULT 0;
"""
FORMAT = Format((_TABLES, _KINDS))
_NUMBERS = (
    "images",
    "forms",
    "texts",
    "failed",
    "kudos",
    "busy_seconds",
    "up_seconds",
    "megapixelsteps",
)
_ADD_HOUR = (
    f"INSERT INTO hours (hour, {', '.join(_NUMBERS)}) VALUES (?{', ?' * len(_NUMBERS)})"
    " ON CONFLICT (hour) DO UPDATE SET "
    + ", ".join(f"{name} = {name} + excluded.{name}" for name in _NUMBERS)
)
_ADD_FAULT = (
    "INSERT INTO faults VALUES (?, ?, ?)"
    " ON CONFLICT (hour, reason) DO UPDATE SET images = images + excluded.images"
)
# By the number of rows, newest written first, so that a clock that was set wrong for a while
# deletes no month.
_FORGET = (
    "DELETE FROM hours WHERE hour NOT IN"
    f" (SELECT hour FROM hours ORDER BY written DESC LIMIT {MOST_HOURS})"
)
_FORGET_FAULTS = "DELETE FROM faults WHERE hour NOT IN (SELECT hour FROM hours)"


@dataclass(slots=True)
class HourOfWork:
    """`hour` counts hours since 1970 UTC. `failed`, `kudos` and `faults` are of all kinds of work.

    `busy_seconds` are the device's, at jobs of pictures that are over, and `megapixelsteps` what it
    made in them: width x height x steps x images / 10^6.
    """

    hour: int
    images: int = 0
    forms: int = 0
    texts: int = 0
    failed: int = 0
    kudos: float = 0.0
    busy_seconds: float = 0.0
    up_seconds: float = 0.0
    megapixelsteps: float = 0.0
    faults: dict[str, int] = field(default_factory=dict[str, int])


class History:
    """`note` is for one thread, `hours` for any; neither raises for the disk's sake.

    `path` None keeps it in memory alone. `now` is in seconds since 1970 UTC.
    """

    def __init__(self, path: Path | None, *, now: Callable[[], float] = time.time):
        self._db = DurableSqlite(path, FORMAT)
        self._now = now
        self._hour = HourOfWork(self._hour_now())
        self._last_over: dict[Kind, JobRow] = {}
        self._noted_at: float | None = None
        self._written_at = time.monotonic()

    def note(self, view: StatusView, beside: Iterable[tuple[Kind, StatusView]] = ()) -> None:
        """To be called about once a second with what the journals of all kinds show."""
        if self._hour_now() != self._hour.hour:
            self._write()
        at = time.monotonic()
        if self._noted_at is not None:
            gap = at - self._noted_at
            self._hour.up_seconds += gap if gap < LONGEST_GAP else 0.0
        self._noted_at = at
        for kind, each in ((Kind.image, view), *beside):
            for row in self._new_rows(kind, each):
                _count(self._hour, kind, row)
        if at >= self._written_at + WRITE_SECONDS:
            self._write()
        self._db.tend()

    def hours(self, last: int) -> list[HourOfWork]:
        """The last so many, this one included, oldest first; those without work are left out."""
        since = self._hour_now() - last
        rows = self._db.read(
            f"SELECT hour, {', '.join(_NUMBERS)} FROM hours"
            " WHERE hour > ? AND hour <= ? ORDER BY hour",
            (since, since + last),
        )
        hours = {row["hour"]: HourOfWork(**dict(row)) for row in rows}
        for row in self._db.read("SELECT * FROM faults WHERE hour > ?", (since,)):
            if row["hour"] in hours:
                hours[row["hour"]].faults[row["reason"]] = row["images"]
        return list(hours.values())

    def close(self) -> None:
        self._write()
        self._db.close()

    def _hour_now(self) -> int:
        return int(self._now() // HOUR)

    def _new_rows(self, kind: Kind, view: StatusView) -> list[JobRow]:
        """Jobs that are over and were not when `note` was called before."""
        over = [row for row in view.rows if row.stage in ENDS]
        last = self._last_over.get(kind)
        places = [place for place, row in enumerate(over) if row is last]
        if over:
            self._last_over[kind] = over[-1]
        return over[places[-1] + 1 :] if places else over

    def _write(self) -> None:
        done, self._hour = self._hour, HourOfWork(self._hour_now())
        self._written_at = time.monotonic()
        known = {row["reason"] for row in self._faults_of(done.hour)}
        numbers = [getattr(done, name) for name in _NUMBERS]
        changes: list[Change] = [
            (_ADD_HOUR, [(done.hour, *numbers)]),
            (_ADD_FAULT, [(done.hour, r, n) for r, n in _bounded(done.faults, known).items()]),
            (_FORGET, [()]),
            (_FORGET_FAULTS, [()]),
        ]
        self._db.write(*changes)

    def _faults_of(self, hour: int) -> list[Mapping[str, str]]:
        rows = self._db.read("SELECT reason FROM faults WHERE hour = ?", (hour,))
        return [dict(row) for row in rows]


def _count(hour: HourOfWork, kind: Kind, row: JobRow) -> None:
    done = sum(end.stage is JobStage.submitted for end in row.ends)
    match kind:
        case Kind.image:
            hour.images += done
        case Kind.form:
            hour.forms += done
        case Kind.text:
            hour.texts += done
    hour.failed += sum(end.is_failure for end in row.ends)
    hour.kudos += row.kudos
    if row.seconds and row.params is not None:
        params = row.params
        hour.busy_seconds += row.seconds
        pixels = params.width * params.height
        hour.megapixelsteps += pixels * params.steps * len(row.slots) / 1e6
    for end in row.ends:
        if end.is_failure:
            told = _QUOTED.sub('"…"', end.reason) if kind is Kind.text else end.reason
            reason = told[:LONGEST_REASON] or end.stage.value
            hour.faults[reason] = hour.faults.get(reason, 0) + 1


def _bounded(faults: Mapping[str, int], known: set[str]) -> dict[str, int]:
    """At most MOST_REASONS in the hour; what is beyond counts with OTHERS."""
    kept: dict[str, int] = {}
    for reason, images in faults.items():
        has_room = reason in known or len(known | kept.keys()) < MOST_REASONS
        name = reason if has_room else OTHERS
        kept[name] = kept.get(name, 0) + images
    return kept
