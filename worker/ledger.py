"""Every popped id and what became of it, on disk, so that a killed worker knows what it owes.

A row is written when the horde hands an id out, and changed at each step until the id has ended.
Finished pictures are kept in it until the horde has acknowledged them. Ended rows are counted by
day and removed after an hour.

SQLite's write-ahead log survives the death of the process at any moment; a power cut may take the
last transactions. Where the disk fails the ledger goes on in memory, says so once, and returns to
the disk as soon as that works again.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from hordelib.gen_metadata import GenMetadata, MetadataType, MetadataValue
from worker.results import Failed, ImageEnd, JobState, Made, Result, Results
from worker.wire import Slot

log = logging.getLogger(__name__)

FILE = "ledger.sqlite"
LOST_POPS = "lost pops"  # calls that may have handed out a job whose ids never arrived
KEPT_SECONDS = 3600.0  # of an ended row: as long as the horde remembers a drop
TEND_SECONDS = 60.0  # between two looks after old rows and at the file
RETRY_SECONDS = 0.5  # between two tries to return to a disk that has failed
BUSY_SECONDS = 5.0
WAL_BYTES = 4 << 20

_VERSION = 1
_SCHEMA = """
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


@dataclass(frozen=True, slots=True)
class Owed:
    """A job of an earlier life of the worker that has not ended yet."""

    results: Results
    model: str


@dataclass(frozen=True, slots=True)
class Totals:
    """Images by how they ended, since the ledger was begun. `open`: not ended yet."""

    images: Mapping[JobState, int]
    kudos: float
    open: int
    lost_pops: int


class Ledger:
    """One worker's ledger. Any thread may use it; no method raises for the disk's sake.

    `path` is the file, None keeps it in memory alone. `now` gives seconds since 1970.
    """

    def __init__(self, path: Path | None, *, now: Callable[[], float] = time.time):
        self._path = path
        self._now = now
        self._lock = threading.Lock()
        self._next_look = 0.0  # time.monotonic()
        self._inode = 0
        self._trouble = ""
        self._closed = False
        self._db = self._opened()

    @property
    def trouble(self) -> str:
        """Why nothing reaches the disk at present; "" while all is well."""
        return self._trouble

    def close(self) -> None:
        with self._lock:
            if self._trouble:
                self._return_to_disk()
            self._closed = True
            self._db.close()

    # ---- the steps of an id ------------------------------------------------------------------

    def popped(self, slots: Sequence[Slot], model: str) -> None:
        """These ids are ours now. Before anything else is done with them."""
        wall_clock = self._now() - time.monotonic()
        self._write(
            "INSERT OR IGNORE INTO images (id, job, place, batch, model, upload_url, over_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    slot.id,
                    slots[0].id,
                    slot.index,
                    slot.batch,
                    model,
                    slot.upload_url,
                    slot.over_at + wall_clock,
                )
                for slot in slots
            ],
        )

    def made(self, images: Iterable[Made]) -> None:
        """Their pictures are finished. A later life judges them, whether this one has or not."""
        self._write(
            "UPDATE images SET state = 'made', seed = ?, webp = ?, prompt = ?,"
            " use_nsfw_censor = ?, notes = ? WHERE id = ?",
            [
                (
                    str(each.seed),
                    each.webp,
                    each.prompt,
                    each.use_nsfw_censor,
                    _notes_text(each.notes),
                    each.slot.id,
                )
                for each in images
            ],
        )

    def failed(self, image: Failed) -> None:
        """There will be no picture: a later life tells the horde the same."""
        self._write(
            "UPDATE images SET state = 'failed', seed = ?, reason = ?, webp = NULL, prompt = ''"
            " WHERE id = ?",
            [(str(image.seed), image.reason, image.slot.id)],
        )

    def ended(self, image_id: str, end: ImageEnd) -> None:
        """The horde knows, or does not want to; the picture is not needed any more."""
        self._write(
            "UPDATE images SET state = ?, reason = ?, kudos = ?, is_drop = ?, ended_at = ?,"
            " webp = NULL, prompt = '' WHERE id = ?",
            [(end.state, end.reason, end.kudos, end.is_drop, self._now(), image_id)],
        )

    def count(self, name: str) -> None:
        self._write(
            "INSERT INTO counters VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET count = count + 1",
            [(name,)],
        )

    def tend(self) -> None:
        """To be called often: now and then it returns to the disk, and forgets old rows."""
        with self._lock:
            if self._closed or time.monotonic() < self._next_look:
                return
            if self._trouble or not self._file_is_there():
                self._return_to_disk()
            try:
                _summarise(self._db, self._now() - KEPT_SECONDS)
            except sqlite3.Error as error:
                self._leave_disk(str(error))
            seconds = RETRY_SECONDS if self._trouble else TEND_SECONDS
            self._next_look = time.monotonic() + seconds

    # ---- what it knows -----------------------------------------------------------------------

    def owed(self) -> list[Owed]:
        """Jobs that an earlier life of the worker has left, oldest first."""
        rows = self._read(
            "SELECT *, rowid FROM images WHERE ended_at IS NULL ORDER BY job, place", ()
        )
        jobs = [list(group) for _, group in groupby(rows, key=lambda row: row["job"])]
        jobs.sort(key=lambda job: job[0]["rowid"])
        return [
            Owed(Results(job[0]["job"], tuple(map(self._result, job))), job[0]["model"])
            for job in jobs
        ]

    def drop_ages(self) -> list[float]:
        """Seconds since each image that the horde held against the worker within the last hour."""
        now = self._now()
        rows = self._read(
            "SELECT ended_at FROM images WHERE is_drop AND ended_at BETWEEN ? AND ?",
            (now - KEPT_SECONDS, now),  # one of the future is of a clock that was set back
        )
        return [now - row["ended_at"] for row in rows]

    def totals(self) -> Totals:
        with self._lock:
            return _totals(self._db)

    def _result(self, row: sqlite3.Row) -> Result:
        slot = Slot(
            id=row["id"],
            upload_url=row["upload_url"],
            index=row["place"],
            batch=row["batch"],
            over_at=self._over_at(row["over_at"]),
        )
        seed, notes = int(row["seed"]), _notes(row["notes"])
        match row["state"]:
            case "made" | "cleared":  # as one that was judged used to be called
                wants_censor = bool(row["use_nsfw_censor"])
                return Made(slot, seed, row["webp"], row["prompt"], wants_censor, notes)
            case "failed":
                return Failed(slot, row["reason"], seed)
            case _:
                return Failed(slot, "the worker was ended while it had this job")

    def _over_at(self, wall_clock: float) -> float:
        """In time.monotonic(). A clock that was set meanwhile can't make it later than a pop's."""
        return time.monotonic() + min(wall_clock - self._now(), KEPT_SECONDS)

    # ---- the disk ----------------------------------------------------------------------------

    def _write(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        """One transaction; on the disk, or in memory where the disk fails; nothing once closed."""
        with self._lock:
            if self._closed:
                return
            try:
                self._execute(statement, rows)
            except sqlite3.Error as error:
                self._leave_disk(str(error))
                self._execute(statement, rows)

    def _execute(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        with self._db:
            self._db.executemany(statement, rows)

    def _read(self, query: str, values: Sequence[Any]) -> list[sqlite3.Row]:
        with self._lock:
            try:
                return self._db.execute(query, values).fetchall()
            except sqlite3.Error as error:
                self._leave_disk(str(error))
                return self._db.execute(query, values).fetchall()

    def _opened(self) -> sqlite3.Connection:
        """The file with what it knows, or memory where the disk fails."""
        if self._path is None:
            return _in_memory()
        try:
            return self._on_disk(self._path)
        except (sqlite3.Error, OSError) as error:
            self._complain(str(error))
        return _in_memory()

    def _on_disk(self, path: Path) -> sqlite3.Connection:
        """One that can't be read is put aside, never in the way.

        Raises sqlite3.Error and OSError where the disk is at fault.
        """
        try:
            return self._connected(path)
        except sqlite3.Error as error:
            aside = _put_aside(path, error) if _is_damage(error) else None
            if aside is None:
                raise
            log.error("%s: %s; put aside as %s, begun anew", path, _why(error), aside)
            return self._connected(path)

    def _connected(self, path: Path) -> sqlite3.Connection:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)
        db = _connected(str(path))
        with _closing_on_error(db):
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
            _make_ready(db)
        self._inode = path.stat().st_ino
        return db

    def _file_is_there(self) -> bool:
        if self._path is None:
            return True
        try:
            return self._path.stat().st_ino == self._inode
        except OSError:
            return False

    def _leave_disk(self, reason: str) -> None:
        """Go on in memory, with all that can still be read."""
        self._complain(reason)
        memory = _in_memory()
        with suppress(sqlite3.Error):
            self._db.rollback()
            self._db.backup(memory)
        with suppress(sqlite3.Error):
            self._db.close()
        self._db = memory if _is_healthy(memory) else _in_memory()

    def _return_to_disk(self) -> None:
        if self._path is None:
            return
        try:
            disk = self._on_disk(self._path)
            with _closing_on_error(disk):
                self._db.backup(disk)
                disk.execute("PRAGMA journal_mode = WAL")  # the copy is not in this mode
        except (sqlite3.Error, OSError) as error:
            self._complain(str(error))
            return
        self._db.close()
        self._db = disk
        log.warning("%s: jobs are kept on disk again", self._path)
        self._trouble = ""

    def _complain(self, reason: str) -> None:
        self._next_look = time.monotonic() + RETRY_SECONDS
        if not self._trouble:
            log.error(
                "%s can't be written (%s): jobs are kept in memory, and would be lost with the"
                " worker; free some disk space, or make the folder writable",
                self._path,
                reason,
            )
        self._trouble = reason


def read_totals(path: Path) -> Totals:
    """Those of a ledger that another process may be writing; it is not touched.

    Raises OSError where it can't be read.
    """
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
            db.row_factory = sqlite3.Row
            return _totals(db)
    except sqlite3.Error as error:
        raise OSError(f"{path} can't be read: {error}") from error


def _totals(db: sqlite3.Connection) -> Totals:
    rows = db.execute(
        "SELECT state, sum(images) AS images, sum(kudos) AS kudos FROM ("
        " SELECT state, images, kudos FROM days UNION ALL"
        " SELECT state, 1, kudos FROM images WHERE ended_at IS NOT NULL) GROUP BY state"
    ).fetchall()
    (waiting,) = db.execute("SELECT count(*) AS n FROM images WHERE ended_at IS NULL")
    lost = db.execute("SELECT count FROM counters WHERE name = ?", (LOST_POPS,)).fetchall()
    return Totals(
        images={JobState(row["state"]): row["images"] for row in rows},
        kudos=sum(row["kudos"] for row in rows),
        open=waiting["n"],
        lost_pops=sum(row["count"] for row in lost),
    )


def _connected(path: str) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=BUSY_SECONDS, check_same_thread=False)
    db.row_factory = sqlite3.Row
    db.execute("PRAGMA auto_vacuum = INCREMENTAL")
    return db


def _in_memory() -> sqlite3.Connection:
    db = _connected(":memory:")
    _make_ready(db)
    return db


def _make_ready(db: sqlite3.Connection) -> None:
    """Create the tables of an empty one. Raises DatabaseError for a damaged or a foreign file."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if (version, tables) == (0, 0):
        db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT;")
    elif version != _VERSION:
        raise _OtherVersion(version)
    (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise sqlite3.DatabaseError(verdict)


def _is_healthy(db: sqlite3.Connection) -> bool:
    try:
        _make_ready(db)
    except sqlite3.Error:
        return False
    return True


def _is_damage(error: Exception) -> bool:
    """Rather than a disk that is full, read-only or away."""
    return isinstance(error, sqlite3.Error) and not isinstance(error, sqlite3.OperationalError)


class _OtherVersion(sqlite3.DatabaseError):
    """Whole, and of another Dreamer than this one."""

    def __init__(self, version: int):
        super().__init__(
            f"written by another version of Dreamer (format {version}, not {_VERSION}), which"
            " can read it again under its old name"
        )
        self.ending = f"version-{version}"


def _why(error: Exception) -> str:
    return str(error) if isinstance(error, _OtherVersion) else f"damaged ({error})"


def _put_aside(path: Path, error: Exception) -> Path | None:
    """Rename the file and what belongs to it, over no earlier one; None where that failed."""
    ending = error.ending if isinstance(error, _OtherVersion) else "damaged"
    aside = path.with_name(f"{path.name}.{ending}")
    if isinstance(error, _OtherVersion) and aside.exists():
        aside = aside.with_name(f"{aside.name}.{time.time_ns()}")
    try:
        path.replace(aside)
        for part in ("-wal", "-shm"):
            with suppress(FileNotFoundError):
                path.with_name(path.name + part).replace(aside.with_name(aside.name + part))
    except OSError:
        return None
    return aside


def _summarise(db: sqlite3.Connection, before: float) -> None:
    """Count the rows that ended before then by day, and remove them."""
    with db:
        db.execute(
            "INSERT INTO days"
            " SELECT date(ended_at, 'unixepoch'), model, state, count(*), sum(kudos) FROM images"
            " WHERE ended_at < ? GROUP BY 1, 2, 3"
            " ON CONFLICT (day, model, state) DO UPDATE SET"
            " images = images + excluded.images, kudos = kudos + excluded.kudos",
            (before,),
        )
        db.execute("DELETE FROM images WHERE ended_at < ?", (before,))
    db.execute("PRAGMA incremental_vacuum").fetchall()  # a page a row


@contextmanager
def _closing_on_error(db: sqlite3.Connection) -> Generator[None]:
    try:
        yield
    except BaseException:
        db.close()
        raise


def _notes_text(notes: Iterable[GenMetadata]) -> str:
    return json.dumps([note.body() for note in notes])


def _notes(text: str) -> tuple[GenMetadata, ...]:
    return tuple(
        GenMetadata(MetadataType(note["type"]), MetadataValue(note["value"]), note.get("ref"))
        for note in json.loads(text)
    )
