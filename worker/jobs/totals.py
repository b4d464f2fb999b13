"""What a ledger has counted since it was begun, of each kind of work.

Its rows may be damaged: what can't be read counts for nothing.
"""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from worker.horde.kinds import Kind
from worker.jobs.durable_sqlite import opened_for_reading
from worker.jobs.results import ENDS, JobStage

LOST_POPS = "lost pops"  # calls that may have handed out a job whose ids never arrived
HOUR_SECONDS = 3600.0

# SQL of the table `images`; a damaged kind counts as a picture's, and a damaged end is none.
IS_OPEN = "typeof(ended_at) <> 'real'"
_KIND = "CASE WHEN kind IN ('form', 'text') THEN kind ELSE 'image' END"
# How an image ended; of a form or text with its kind before it, so that each has its own count.
ENDED_AS = "CASE WHEN kind IN ('form', 'text') THEN kind || ' ' || state ELSE state END"


@dataclass(frozen=True, slots=True)
class KindTotals:
    """Images, forms or texts: by how they ended, with their kudos; those that have not ended yet;
    and those that were submitted within the last hour."""

    ends: Mapping[JobStage, int]
    kudos: float
    open: int
    hour_done: int
    hour_kudos: float


@dataclass(frozen=True, slots=True)
class Totals:
    """`of` has images, and what else was ever in hand. `lost_pops` are of all kinds."""

    of: Mapping[Kind, KindTotals]
    lost_pops: int

    @property
    def images(self) -> Mapping[JobStage, int]:
        return self.of[Kind.image].ends

    @property
    def seen(self) -> Mapping[Kind, KindTotals]:
        """Those kinds of which anything was ever in hand; images, where nothing was."""
        seen = {kind: told for kind, told in self.of.items() if told.ends or told.open}
        return seen or {Kind.image: self.of[Kind.image]}

    @property
    def others(self) -> Mapping[Kind, KindTotals]:
        return {kind: told for kind, told in self.of.items() if kind is not Kind.image}

    @property
    def kudos(self) -> float:
        return math.fsum(each.kudos for each in self.of.values())

    @property
    def open(self) -> int:
        return sum(each.open for each in self.of.values())


def read_totals(path: Path) -> Totals:
    """Those of a ledger that another process may be writing; it is not touched.

    Raises OSError where it can't be read.
    """
    with opened_for_reading(path) as read:
        return totals_of(read)


def totals_of(read: Callable[[str], list[sqlite3.Row]]) -> Totals:
    """`read` answers a query. total() is a number whatever the rows hold."""
    has_kinds = read("SELECT 1 FROM pragma_table_info('images') WHERE name = 'kind'")
    # Of an earlier version, which knew images alone and which nobody has served with since.
    end, kind = (ENDED_AS, _KIND) if has_kinds else ("state", "'image'")
    ended = read(
        "SELECT state, total(images) AS n, total(kudos) AS kudos FROM ("
        " SELECT state, images, kudos FROM days UNION ALL"
        f" SELECT {end}, 1, kudos FROM images WHERE NOT {IS_OPEN}) GROUP BY state"
    )
    waiting = read(f"SELECT {kind} AS kind, total(1) AS n FROM images WHERE {IS_OPEN} GROUP BY 1")
    hour = read(
        f"SELECT {kind} AS kind, total(1) AS n, total(kudos) AS kudos FROM images"
        f" WHERE state = '{JobStage.submitted}' AND ended_at > {time.time() - HOUR_SECONDS!r}"
        " GROUP BY 1"
    )
    lost = read(f"SELECT total(count) AS n FROM counters WHERE name = '{LOST_POPS}'")
    by_end = {row["state"]: row for row in ended}
    open_of, hour_of = ({row["kind"]: row for row in rows} for rows in (waiting, hour))
    of = {kind: _of(kind, by_end, open_of.get(kind), hour_of.get(kind)) for kind in Kind}
    return Totals(
        {kind: told for kind, told in of.items() if kind is Kind.image or told.ends or told.open},
        sum(_whole(row["n"]) for row in lost),
    )


def _of(
    kind: Kind,
    by_end: Mapping[str, sqlite3.Row],
    open_row: sqlite3.Row | None,
    hour_row: sqlite3.Row | None,
) -> KindTotals:
    prefix = "" if kind is Kind.image else f"{kind} "  # as ENDED_AS has it
    rows = {end: row for end in ENDS if (row := by_end.get(prefix + end)) is not None}
    return KindTotals(
        ends={end: _whole(row["n"]) for end, row in rows.items()},
        kudos=math.fsum(_finite(row["kudos"]) for row in rows.values()),
        open=_whole(open_row["n"]) if open_row else 0,
        hour_done=_whole(hour_row["n"]) if hour_row else 0,
        hour_kudos=_finite(hour_row["kudos"]) if hour_row else 0.0,
    )


def _finite(number: float) -> float:
    return number if math.isfinite(number) else 0.0


def _whole(number: float) -> int:
    return int(_finite(number))
