"""Every popped id and what became of it, on disk, so that a killed worker knows what it owes.

A row is written when the horde hands an id out, and changed at each step until the id has ended.
Finished pictures, and what forms and texts came to, are kept in it until the horde has
acknowledged them. Ended rows are counted by
day and removed after an hour.

Beside the rows lies what the horde asked for, so that the next life can make it again. It is
deleted as soon as anything is known of one of the job's images: by a trigger, so that no writer
forgets it. Encrypting it would protect nobody: the key would have to lie in the same folder.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

from hordelib.job.notes import GenMetadata
from worker.clock import SteadyClock, elapsed_seconds
from worker.horde.api import Slot
from worker.horde.kinds import Kind
from worker.jobs.durable_sqlite import DurableSqlite, Value
from worker.jobs.owed import ImageRow, Owed, read_owed
from worker.jobs.results import GIVEN_BACK, Failed, ImageEnd, JobStage, Made, Solved
from worker.jobs.sqlite_format import Format
from worker.jobs.totals import ENDED_AS, IS_OPEN, Totals, totals_of

log = logging.getLogger(__name__)

FILE = "ledger.sqlite"
KEPT_SECONDS = 3600.0  # of an ended row: as long as the horde remembers a drop
LONGEST_ASKED = 16 << 20  # characters; of a longer one the next life only knows the ids

_IMAGES = """
CREATE TABLE images (
    id TEXT PRIMARY KEY,
    job TEXT NOT NULL,
    place INTEGER NOT NULL,
    batch INTEGER NOT NULL,
    model TEXT NOT NULL,
    upload_url TEXT NOT NULL,
    over_at REAL NOT NULL,
    state TEXT NOT NULL DEFAULT 'popped',
    seed TEXT NOT NULL DEFAULT '0',
    webp BLOB,
    prompt TEXT NOT NULL DEFAULT '',
    use_nsfw_censor INTEGER NOT NULL DEFAULT 0,
    notes TEXT NOT NULL DEFAULT '[]',
    reason TEXT NOT NULL DEFAULT '',
    kudos REAL NOT NULL DEFAULT 0,
    is_drop INTEGER NOT NULL DEFAULT 0,
    ended_at REAL
);
CREATE INDEX ended ON images (ended_at);
CREATE TABLE days (
    day TEXT, model TEXT, state TEXT, images INTEGER, kudos REAL,
    PRIMARY KEY (day, model, state)
);
CREATE TABLE counters (name TEXT PRIMARY KEY, count INTEGER NOT NULL);
"""
_JOBS = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY,
    asked TEXT NOT NULL,
    lives INTEGER NOT NULL DEFAULT 1
);
CREATE TRIGGER IF NOT EXISTS asked_no_more AFTER UPDATE OF state ON images BEGIN
    DELETE FROM jobs WHERE id = NEW.job;
END;
"""
_KINDS = "ALTER TABLE images ADD COLUMN kind TEXT NOT NULL DEFAULT 'image';"
_JOINED = {
    "images": (
        "ON CONFLICT (id) DO UPDATE SET state = excluded.state, seed = excluded.seed,"
        " webp = excluded.webp, prompt = excluded.prompt, notes = excluded.notes,"
        " reason = excluded.reason, kudos = excluded.kudos, is_drop = excluded.is_drop,"
        " ended_at = excluded.ended_at"
    ),
    "jobs": "ON CONFLICT (id) DO NOTHING",
    "days": (
        "ON CONFLICT (day, model, state) DO UPDATE SET"
        " images = images + excluded.images, kudos = kudos + excluded.kudos"
    ),
    "counters": "ON CONFLICT (name) DO UPDATE SET count = count + excluded.count",
}
FORMAT = Format((_IMAGES, _JOBS, _KINDS), _JOINED)


class Ledger:
    """One worker's ledger. Any thread may use it; no method raises for the disk's sake.

    `path` is the file, None keeps it in memory alone.
    """

    def __init__(self, path: Path | None, *, clock: SteadyClock | None = None):
        self._now = clock or SteadyClock()
        self._db = DurableSqlite(path, FORMAT)
        now = self._now()
        self._db.write((_END_BY_NOW, [(now, now)]))

    @property
    def trouble(self) -> str:
        """Why nothing reaches the disk at present; "" while all is well."""
        return self._db.trouble

    def close(self) -> None:
        self._db.close()

    # ---- the steps of an id ------------------------------------------------------------------

    def popped(
        self, slots: Sequence[Slot], model: str, asked: str = "", kind: Kind = Kind.image
    ) -> None:
        """These ids are ours now. Before anything else is done with them.

        `asked` is what a later life makes them of (Job.asked); without it, it faults them. A form
        that has failed comes again under its id, so that what ended under it gets another.
        """
        wall_clock = self._now() - elapsed_seconds()
        job_id = slots[0].id
        rows: list[tuple[Value, ...]] = [
            (
                slot.id,
                job_id,
                slot.index,
                slot.batch,
                model,
                slot.upload_url,
                slot.over_at + wall_clock,
                kind,
            )
            for slot in slots
        ]
        is_kept = 0 < len(asked) <= LONGEST_ASKED
        self._db.write(
            (_RENAME_ENDED, [(slot.id,) for slot in slots]),
            (
                "INSERT OR IGNORE INTO images (id, job, place, batch, model, upload_url, over_at,"
                " kind) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                rows,
            ),
            ("INSERT OR IGNORE INTO jobs (id, asked) VALUES (?, ?)", [(job_id, asked)] * is_kept),
        )

    def made(self, images: Iterable[Made]) -> None:
        """Their pictures are finished. A later life judges them, whether this one has or not."""
        rows: list[tuple[Value, ...]] = [
            (
                str(each.seed),
                each.webp,
                each.prompt,
                each.use_nsfw_censor,
                _notes_text(each.notes),
                each.slot.id,
            )
            for each in images
        ]
        self._db.write(
            (
                "UPDATE images SET state = 'made', seed = ?, webp = ?, prompt = ?,"
                " use_nsfw_censor = ?, notes = ? WHERE id = ?",
                rows,
            )
        )

    def solved(self, task: Solved) -> None:
        """A form or a text is done: a later life hands in the same. Its JSON lies where the file of
        a picture does."""
        file = json.dumps(task.value).encode()
        self._db.write(
            ("UPDATE images SET state = 'made', webp = ? WHERE id = ?", [(file, task.slot.id)])
        )

    def failed(self, image: Failed) -> None:
        """There will be no picture: a later life tells the horde the same."""
        self._db.write(
            (
                "UPDATE images SET state = 'failed', seed = ?, reason = ?, webp = NULL,"
                " prompt = '' WHERE id = ?",
                [(str(image.seed), image.reason, image.slot.id)],
            )
        )

    def ended(self, image_id: str, end: ImageEnd) -> None:
        """The horde knows, or does not want to; the picture is not needed any more."""
        self._db.write(
            (
                "UPDATE images SET state = ?, reason = ?, kudos = ?, is_drop = ?, ended_at = ?,"
                " webp = NULL, prompt = '' WHERE id = ?",
                [(end.stage, end.reason, end.kudos, end.is_drop, self._now(), image_id)],
            )
        )

    def count(self, name: str) -> None:
        self._db.write(
            (
                "INSERT INTO counters VALUES (?, 1)"
                " ON CONFLICT (name) DO UPDATE SET count = count + 1",
                [(name,)],
            )
        )

    def tend(self) -> None:
        """To be called often: now and then it returns to the disk, and forgets old rows.

        Where the machine's clock was set, the rows follow it first: the next life reads them by it.
        """
        if self._db.tend():
            if ahead := self._now.catch_up():
                log.warning("this machine's clock was set by %+.0f s", ahead)
                self._db.write((_MOVE_DEADLINES, [(ahead,)]), (_MOVE_ENDS, [(ahead,)]))
            before = self._now() - KEPT_SECONDS
            self._db.write((_SUMMARISE, [(before,)]), (_FORGET, [(before,)]))

    # ---- what it knows -----------------------------------------------------------------------

    def known(self, ids: Iterable[str], kind: Kind = Kind.image) -> frozenset[str]:
        """Those that the horde has handed out before: in hand, or ended within the last hour.

        A form comes again under its id until a result was taken, so that only then it is known.
        """
        taken = f" AND state = '{JobStage.submitted}'" if kind is Kind.form else ""
        rows = self._db.read(
            f"SELECT id FROM images WHERE id IN (SELECT value FROM json_each(?)){taken}",
            (json.dumps(list(ids)),),
        )
        return frozenset(row["id"] for row in rows)

    def owed(self, kind: Kind = Kind.image) -> list[Owed]:
        """Jobs of a kind that an earlier life of the worker has left, oldest first.

        To be asked once a life for each kind: those that can be made again are in one life more
        then.
        """
        images = self._db.read(
            f"SELECT rowid, {', '.join(ImageRow.model_fields)} FROM images"
            f" WHERE {IS_OPEN} AND {_is_of(kind)} ORDER BY rowid"
        )
        jobs = self._db.read(f"SELECT id, asked, lives FROM jobs WHERE {_are_of(kind)}")
        found, nameless = read_owed(images, jobs, self._now(), kind)
        again = json.dumps([owed.job.id for owed in found if owed.job])
        self._db.write(
            ("DELETE FROM images WHERE rowid = ?", [(rowid,) for rowid in nameless]),
            (
                f"DELETE FROM jobs WHERE {_are_of(kind)}"
                " AND id NOT IN (SELECT value FROM json_each(?))",
                [(again,)],
            ),
            (f"UPDATE jobs SET lives = lives + 1 WHERE {_are_of(kind)}", [()]),
        )
        return found

    def drop_ages(self, kind: Kind = Kind.image) -> list[float]:
        """Seconds since each image that the horde held against the worker within the last hour."""
        return self._ages(f"is_drop AND {_is_of(kind)}")

    def stop_ages(self, kind: Kind = Kind.image) -> list[float]:
        """As `drop_ages`, of those that a stop or a pause of the worker gave back."""
        which = f"is_drop AND reason IN (?, ?) AND {_is_of(kind)}"
        return self._ages(which, *GIVEN_BACK)

    def _ages(self, which: str, *values: Value) -> list[float]:
        now = self._now()
        rows = self._db.read(
            f"SELECT ended_at FROM images WHERE {which} AND ended_at BETWEEN ? AND ?",
            (*values, now - KEPT_SECONDS, now),
        )
        return [now - row["ended_at"] for row in rows]

    def totals(self) -> Totals:
        return totals_of(self._db.read)


def _is_of(kind: Kind) -> str:
    """That a row is of this kind. A damaged kind counts as a picture's: somebody has to end it."""
    others = ", ".join(f"'{each}'" for each in Kind if each is not Kind.image)
    return f"kind NOT IN ({others})" if kind is Kind.image else f"kind = '{kind}'"


def _are_of(kind: Kind) -> str:
    """The same of what was asked for. What has lost its images is removed with the pictures."""
    if kind is Kind.image:
        return "id NOT IN (SELECT job FROM images WHERE kind <> 'image')"
    return f"id IN (SELECT job FROM images WHERE kind = '{kind}')"


# What ended in the future did so by a clock that was set back between two lives: nobody knows when.
_END_BY_NOW = "UPDATE images SET ended_at = ? WHERE typeof(ended_at) = 'real' AND ended_at > ?"
_RENAME_ENDED = f"UPDATE images SET id = id || ' ' || rowid WHERE id = ? AND NOT {IS_OPEN}"
_MOVE_DEADLINES = "UPDATE images SET over_at = over_at + ? WHERE typeof(over_at) = 'real'"
_MOVE_ENDS = "UPDATE images SET ended_at = ended_at + ? WHERE typeof(ended_at) = 'real'"
_SUMMARISE = (
    "INSERT INTO days"
    f" SELECT date(ended_at, 'unixepoch'), model, {ENDED_AS}, count(*), sum(kudos) FROM images"
    " WHERE ended_at < ? GROUP BY 1, 2, 3"
    " ON CONFLICT (day, model, state) DO UPDATE SET"
    " images = images + excluded.images, kudos = kudos + excluded.kudos"
)
_FORGET = "DELETE FROM images WHERE ended_at < ?"


def _notes_text(notes: Iterable[GenMetadata]) -> str:
    return json.dumps([note.body() for note in notes])
