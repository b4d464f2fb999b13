"""What is in the files of the models folder, remembered, so that they are not read at every start.

A file counts as read while its size and its time of change are as they were.
"""

from __future__ import annotations

import hashlib
import os
import threading
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from hordelib.files.json_file import JsonFile

FILE = "verified.json"


@dataclass(frozen=True, slots=True)
class _Seen:
    size_bytes: int
    mtime_ns: int
    sha256: str


_SEEN = TypeAdapter(dict[str, _Seen])


class VerifiedFiles:
    """The sha256 of files below `folder`, as far as they were read. Any thread may use it."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._file = JsonFile(folder / FILE, _SEEN)
        self._lock = threading.Lock()

    def known(self, path: Path) -> str:
        """The sha256 of what is in the file, "" where it was not read since it changed."""
        seen = self._read().get(self._key(path))
        stamp = _stamp(path)
        return seen.sha256 if seen and stamp == (seen.size_bytes, seen.mtime_ns) else ""

    def sha256(self, path: Path) -> str:
        """The sha256 of the file, read where that is not known. Raises OSError."""
        return self.known(path) or self.measure(path)

    def measure(self, path: Path) -> str:
        """The sha256 of the file, read anew and remembered. Raises OSError."""
        before = _stamp(path)
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        if before == _stamp(path):
            self.remember(path, sha256)
        return sha256

    def remember(self, path: Path, sha256: str) -> None:
        """Take down what is in a file that was just written."""
        stamp = _stamp(path)
        if stamp is None:
            return
        with self._lock:
            seen = {key: each for key, each in self._read().items() if self._is_there(key)}
            seen[self._key(path)] = _Seen(*stamp, sha256)
            self._file.keep(seen)  # or it is read again the next time

    def _read(self) -> dict[str, _Seen]:
        """From the disk each time: another process may have verified something meanwhile."""
        return self._file.read() or {}

    def _is_there(self, key: str) -> bool:
        return (self._folder / key).is_file()

    def _key(self, path: Path) -> str:
        return Path(os.path.relpath(path, self._folder)).as_posix()


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns
