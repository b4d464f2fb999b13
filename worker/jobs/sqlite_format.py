"""The tables that an SQLite file should have, and what is done with one that can't be used."""

from __future__ import annotations

import itertools
import os
import re
import sqlite3
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

# What reading a damaged file raises: messages about it may hold its bytes, which are no text.
FILE_ERRORS = (sqlite3.Error, UnicodeError, MemoryError)
_DISK_FAULTS = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_READONLY,
    }
)


@dataclass(frozen=True, slots=True)
class Format:
    """The tables of a file. `steps[n]` is SQL that makes format n + 1 of format n.

    `joined` says of a table what becomes of rows that came in memory while the file could not be
    read: the end of an INSERT. Rows of other tables are left out then.
    """

    steps: tuple[str, ...]
    joined: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def version(self) -> int:
        return len(self.steps)


def make_ready(db: sqlite3.Connection, form: Format) -> None:
    """Bring an empty or an older one to this format.

    Raises DatabaseError for a damaged or a foreign file: every page of it is read, and every table
    is compared with what this format has.
    """
    (version,) = db.execute("PRAGMA user_version").fetchone()
    is_empty = (version, _objects(db)) == (0, frozenset())
    if not is_empty and not 0 < version <= form.version:
        raise OtherVersion(version, form.version)
    (verdict,) = db.execute("PRAGMA integrity_check(1)").fetchone()
    if verdict != "ok":
        raise told_by_check(" ".join(str(verdict).split()))
    if version < form.version:
        steps = " ".join(form.steps[version:])
        db.executescript(f"BEGIN; {steps} PRAGMA user_version = {form.version}; COMMIT;")
    if missing := _objects_of(form) - _objects(db):
        names = ", ".join(sorted(name for _, name, _ in missing))
        raise sqlite3.DatabaseError(f"not as they should be: {names}")


def told_by_check(verdict: str) -> sqlite3.DatabaseError:
    """As the error that it is: a page that can't be read for want of memory or by the disk's fault
    is no damage."""
    error = sqlite3.DatabaseError(verdict)
    if code := re.search(r"error code=(\d+)", verdict):
        error.sqlite_errorcode = int(code[1])
    return error


def _objects(db: sqlite3.Connection) -> frozenset[tuple[str, str, str]]:
    """Tables, indices and triggers: what kind, its name, and the statement that made it."""
    rows = db.execute("SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL")
    return frozenset((row["type"], row["name"], row["sql"]) for row in rows)


def _objects_of(form: Format) -> frozenset[tuple[str, str, str]]:
    db = sqlite3.connect(":memory:")
    try:
        db.row_factory = sqlite3.Row
        db.executescript(" ".join(form.steps))
        return _objects(db)
    finally:
        db.close()


def is_damage(error: Exception, path: Path) -> bool:
    """Rather than a disk that is full, read-only or away, or memory that runs out."""
    if isinstance(error, MemoryError):
        return False
    code: int | None = getattr(error, "sqlite_errorcode", None)  # None: not by SQLite itself
    if code is None or code & 0xFF not in _DISK_FAULTS:
        return True
    # A damaged header says "read only", too.
    return code == sqlite3.SQLITE_READONLY and os.access(path, os.W_OK)


class OtherVersion(sqlite3.DatabaseError):
    """Whole, and of another Dreamer than this one."""

    def __init__(self, version: int, ours: int):
        super().__init__(
            f"written by another version of Dreamer (format {version}, not {ours}), which"
            " can read it again under its old name"
        )
        self.ending = f"version-{version}"


def why_not_usable(error: Exception) -> str:
    return str(error) if isinstance(error, OtherVersion) else f"damaged ({error})"


def put_aside(path: Path, error: Exception) -> Path | None:
    """Rename the file and what belongs to it; None where that failed.

    A whole file replaces no earlier one; a damaged one replaces an earlier damaged one.
    """
    if isinstance(error, OtherVersion):
        first = path.with_name(f"{path.name}.{error.ending}")
        others = (first.with_name(f"{first.name}.{number}") for number in itertools.count(2))
        aside = next(name for name in itertools.chain([first], others) if not name.exists())
    else:
        aside = path.with_name(f"{path.name}.damaged")
    try:
        path.replace(aside)
        for part in ("-wal", "-shm"):
            theirs = aside.with_name(aside.name + part)
            theirs.unlink(missing_ok=True)
            with suppress(FileNotFoundError):
                path.with_name(path.name + part).replace(theirs)
    except OSError:
        return None
    return aside
