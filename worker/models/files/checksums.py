"""What is in the files of the models folder, remembered, so that they are not read at every start.

A file counts as read while its size and its time of change are as they were.
"""

from __future__ import annotations

import hashlib
import os
import threading
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter

from hordelib.files.content_hash import content_hash
from hordelib.files.json_file import JsonFile

FILE = "verified.json"


@dataclass(frozen=True, slots=True)
class _Seen:
    """A file as it was, and what was found in it; "" where it was not read for that."""

    size_bytes: int
    mtime_ns: int
    sha256: str = ""
    content_hash: str = ""


_SEEN = TypeAdapter(dict[str, _Seen])


@dataclass(frozen=True, slots=True)
class Checksum:
    """What a file should hold, in lower case: its sha256, or that of its tensors alone
    (hordelib.files.content_hash). "" where nobody can say."""

    value: str = ""
    of_tensors: bool = False


class VerifiedFiles:
    """The checksums of files below `folder`, as far as they were read. Any thread may use it.

    Each is the file's sha256, or `of_tensors` its content hash.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._file = JsonFile(folder / FILE, _SEEN)
        self._lock = threading.Lock()

    def known(self, path: Path, *, of_tensors: bool = False) -> str:
        """Of what is in the file, "" where it was not read since it changed."""
        seen = self._read().get(self._key(path))
        if seen is None or _stamp(path) != (seen.size_bytes, seen.mtime_ns):
            return ""
        return seen.content_hash if of_tensors else seen.sha256

    def found(self, path: Path, *, of_tensors: bool = False) -> str:
        """Read where that is not known. Raises as `measure`."""
        return self.known(path, of_tensors=of_tensors) or self.measure(path, of_tensors=of_tensors)

    def measure(self, path: Path, *, of_tensors: bool = False) -> str:
        """Read anew and remembered. Raises OSError, and ModelBroken where tensors are asked for and
        it is no whole safetensors file."""
        before = _stamp(path)
        value = content_hash(path) if of_tensors else _sha256(path)
        if before == _stamp(path):
            self.remember(path, Checksum(value, of_tensors))
        return value

    def remember(self, path: Path, checksum: Checksum) -> None:
        """Take down what is in a file that was just written, or read."""
        stamp = _stamp(path)
        if stamp is None:
            return
        field = {"content_hash" if checksum.of_tensors else "sha256": checksum.value}
        with self._lock:
            seen = {key: each for key, each in self._read().items() if self._is_there(key)}
            before = seen.get(self._key(path))
            if before is None or stamp != (before.size_bytes, before.mtime_ns):
                before = _Seen(*stamp)
            seen[self._key(path)] = replace(before, **field)
            self._file.keep(seen)  # or it is read again the next time

    def _read(self) -> dict[str, _Seen]:
        """From the disk each time: another process may have verified something meanwhile."""
        return self._file.read() or {}

    def _is_there(self, key: str) -> bool:
        return (self._folder / key).is_file()

    def _key(self, path: Path) -> str:
        return Path(os.path.relpath(path, self._folder)).as_posix()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns
