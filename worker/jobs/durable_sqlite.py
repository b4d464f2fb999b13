"""An SQLite file that outlives the process, and goes on in memory where the disk fails.

SQLite's write-ahead log survives the death of the process at any moment; a power cut may take the
last transactions. Where the disk fails, the content moves to memory, which is said once, and
returns to the disk as soon as that works again. A file that can't be read is put aside under
another name, never in the way. What is deleted is overwritten with zeros in the file, and within
TEND_SECONDS the write-ahead log forgets it too.

This module knows nothing of what the tables mean.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from worker.clock import elapsed_seconds
from worker.jobs.sqlite_format import (
    FILE_ERRORS,
    Format,
    is_damage,
    make_ready,
    put_aside,
    why_not_usable,
)

log = logging.getLogger(__name__)

TEND_SECONDS = 60.0  # between two looks at the file
RETRY_SECONDS = 0.5  # between two tries to return to a disk that has failed
BUSY_SECONDS = 5.0
WAL_BYTES = 4 << 20

Value = str | bytes | int | float | None
Change = tuple[str, Sequence[Sequence[Value]]]
"""A statement, and the values of each time that it is executed."""


class DurableSqlite:
    """One file. Any thread may use it; no method raises for the disk's or the file's sake.

    `path` None keeps everything in memory. Text that is no UTF-8 is read with lone surrogates.
    """

    def __init__(self, path: Path | None, form: Format):
        self._path = path
        self._form = form
        self._lock = threading.Lock()
        self._next_look = 0.0  # elapsed_seconds()
        self._inode = 0
        self._trouble = ""
        self._closed = False
        self._is_unread = False  # the file may hold what could not be read into memory
        self._db = self._opened()

    @property
    def trouble(self) -> str:
        """Why nothing reaches the disk at present; "" while all is well."""
        return self._trouble

    def write(self, *changes: Change) -> None:
        """One transaction; on the disk, or in memory where the disk fails; nothing once closed."""
        with self._lock:
            if self._closed:
                return
            try:
                self._execute(changes)
            except FILE_ERRORS as error:
                self._leave_disk(str(error))
                try:
                    self._execute(changes)
                except FILE_ERRORS as again:
                    log.error("%s: a change is lost: %s", self._path, again)

    def read(self, query: str, values: Sequence[Value] = ()) -> list[sqlite3.Row]:
        """Nothing where the rows can't be read; then the content is begun anew."""
        with self._lock:
            try:
                return self._db.execute(query, values).fetchall()
            except FILE_ERRORS as error:
                self._leave_disk(str(error))
            with suppress(*FILE_ERRORS):
                return self._db.execute(query, values).fetchall()
            return []

    def tend(self) -> bool:
        """To be called often: now and then it returns to the disk and shrinks the file; whether it
        was time for that."""
        with self._lock:
            if self._closed or elapsed_seconds() < self._next_look:
                return False
            if self._trouble:
                self._return_to_disk()
            elif not self._file_is_there():
                # Another one may be: of a disk that was mounted late, or a copy that was put back.
                self._is_unread = self._path is not None and self._path.exists()
                self._return_to_disk()
            try:
                self._db.execute("PRAGMA incremental_vacuum").fetchall()  # a page a row
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            except FILE_ERRORS as error:
                self._leave_disk(str(error))
            seconds = RETRY_SECONDS if self._trouble else TEND_SECONDS
            self._next_look = elapsed_seconds() + seconds
            return True

    def close(self) -> None:
        with self._lock:
            if self._trouble:
                self._return_to_disk()
            self._closed = True
            with suppress(*FILE_ERRORS):
                self._db.close()

    def _execute(self, changes: Sequence[Change]) -> None:
        with self._db:
            for statement, rows in changes:
                self._db.executemany(statement, [tuple(map(_storable, row)) for row in rows])

    def _opened(self) -> sqlite3.Connection:
        """The file with what it knows, or memory where the disk fails."""
        if self._path is None:
            return self._in_memory()
        try:
            return self._on_disk(self._path)
        except (*FILE_ERRORS, OSError) as error:
            self._complain(str(error))
        memory = _connected(":memory:")
        try:
            _read_untouched(self._path, memory)
            make_ready(memory, self._form)
        except (*FILE_ERRORS, OSError):
            memory.close()
            self._is_unread = True
            return self._in_memory()
        return memory

    def _on_disk(self, path: Path) -> sqlite3.Connection:
        """Raises FILE_ERRORS and OSError where the disk is at fault."""
        try:
            return self._of_file(path)
        except FILE_ERRORS as error:
            aside = put_aside(path, error) if is_damage(error, path) else None
            if aside is None:
                raise
            log.error("%s: %s; put aside as %s, begun anew", path, why_not_usable(error), aside)
            return self._of_file(path)

    def _of_file(self, path: Path) -> sqlite3.Connection:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.chmod(0o600)  # SQLite gives its other files the same
        db = _connected(str(path))
        with _closing_on_error(db):
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
            make_ready(db, self._form)
        self._inode = path.stat().st_ino
        return db

    def _in_memory(self) -> sqlite3.Connection:
        db = _connected(":memory:")
        make_ready(db, self._form)
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
        memory = _connected(":memory:")
        try:
            self._db.rollback()
            self._db.backup(memory)
            make_ready(memory, self._form)
        except FILE_ERRORS:
            memory = self._in_memory()
            self._is_unread = True
        with suppress(*FILE_ERRORS):
            self._db.close()
        self._db = memory

    def _return_to_disk(self) -> None:
        if self._path is None:
            return
        try:
            disk = self._on_disk(self._path)
            with _closing_on_error(disk):
                if self._is_unread:
                    _join(self._db, disk, self._form.joined)
                else:
                    self._db.backup(disk)
                    disk.execute("PRAGMA journal_mode = WAL")  # the copy is not in this mode
        except (*FILE_ERRORS, OSError) as error:
            self._complain(str(error))
            return
        with suppress(*FILE_ERRORS):
            self._db.close()
        self._db = disk
        log.warning("%s: what it holds is kept on disk again", self._path)
        self._trouble, self._is_unread = "", False

    def _complain(self, reason: str) -> None:
        self._next_look = elapsed_seconds() + RETRY_SECONDS
        if not self._trouble:
            log.error(
                "%s can't be written (%s): what it holds is kept in memory, and would be lost with"
                " the worker; free some disk space, or make the folder writable",
                self._path,
                reason,
            )
        self._trouble = reason


@contextmanager
def opened_for_reading(path: Path) -> Generator[Callable[[str], list[sqlite3.Row]]]:
    """Ask a file that another process may be writing; it is not touched.

    Raises OSError where it can't be read.
    """
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
            db.row_factory, db.text_factory = sqlite3.Row, _as_text
            yield lambda query: db.execute(query).fetchall()
    except FILE_ERRORS as error:
        raise OSError(f"{path} can't be read: {error}") from error


def _storable(value: Value) -> Value:
    """SQLite's text is UTF-8, which has no lone surrogates."""
    if isinstance(value, str) and not value.isascii():
        return value.encode("utf-8", "replace").decode("utf-8")
    return value


def _as_text(raw: bytes) -> str:
    """As a text factory: what is no UTF-8 is kept, as lone surrogates."""
    return raw.decode("utf-8", "surrogateescape")


def _connected(path: str) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=BUSY_SECONDS, check_same_thread=False)
    db.row_factory, db.text_factory = sqlite3.Row, _as_text
    db.execute("PRAGMA auto_vacuum = INCREMENTAL")
    db.execute("PRAGMA secure_delete = ON")
    return db


def _read_untouched(path: Path, memory: sqlite3.Connection) -> None:
    """Copy a file that nobody writes, from a disk that can't be written.

    Reading a write-ahead log needs another file for its index, unless the log is locked for this
    connection alone: then the index is in memory. A lock can't be had on a read-only disk, so this
    goes by SQLite's own way to files that takes none.
    """
    way = "win32-none" if os.name == "nt" else "unix-none"
    uri = f"{path.absolute().as_uri()}?mode=ro&vfs={way}"
    with closing(sqlite3.connect(uri, uri=True)) as disk:
        disk.execute("PRAGMA locking_mode = EXCLUSIVE")
        disk.backup(memory)


def _join(memory: sqlite3.Connection, disk: sqlite3.Connection, joined: Mapping[str, str]) -> None:
    """Write the rows of these tables beside those that are there."""
    with disk:
        for table, end in joined.items():
            found = memory.execute(f"SELECT * FROM {table}")
            places = ", ".join("?" * len(found.description))
            rows = [tuple(row) for row in found]
            disk.executemany(f"INSERT INTO {table} VALUES ({places}) {end}", rows)


@contextmanager
def _closing_on_error(db: sqlite3.Connection) -> Generator[None]:
    try:
        yield
    except BaseException:
        db.close()
        raise
