"""Files over HTTP: resumed where they broke off, verified while they come, whole or not there."""

from __future__ import annotations

import hashlib
import math
import os
import re
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from hordelib.errors import (
    DiskTrouble,
    DownloadFailed,
    DownloadRefused,
    DownloadStopped,
    ModelBroken,
)
from hordelib.files.whole_files import PART, move_over, open_to_append
from worker.clock import elapsed_seconds
from worker.net.fetch import Answer, TryLater, Web, wait_until_next_try

_BLOCK_BYTES = 1 << 20
_LOCKED_BYTE = 1 << 60
_TRIES = 3  # that bring nothing new
_DAMAGED_SECONDS = 86400.0
_LENGTH = re.compile(r"[0-9]{1,18}")
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """A file to be had. `sha256` in lower case; `target` appears only with that content.

    Where `sha256` is "", it appears if `insist`, which is given the file, raises no ModelBroken.
    One of more than `most_bytes` is another file. For more than `room_bytes` there is no room now.
    `is_wanted` is asked again and again while it comes.
    """

    url: str
    target: Path
    sha256: str
    insist: Callable[[Path], None] | None = None
    most_bytes: float = math.inf
    room_bytes: float = math.inf
    is_wanted: Callable[[], bool] = lambda: True


class Downloader:
    """Fetches files, at most `at_once` of them together, each only once however many threads ask.

    `pause_seconds` lie between two tries, twice as many before a third that brings nothing.
    """

    def __init__(self, web: Web, *, at_once: int = 4, pause_seconds: float = 1.0):
        self._web = web
        self._pause_seconds = pause_seconds
        self._slots = threading.BoundedSemaphore(at_once)
        self._turns = _Turns()

    @contextmanager
    def turn(self, target: Path, deadline: float) -> Generator[None]:
        """Nobody else fetches `target` meanwhile. Raises DownloadFailed at the deadline."""
        with self._turns.turn(str(target), deadline):
            yield

    def fetch(self, download: Download, deadline: float) -> None:
        """Put the file at its target; does nothing where it is. `deadline` is of elapsed_seconds().

        What has come stays for a later try, unless it is wrong. Raises DownloadRefused for a last
        word or a wrong content, DownloadStopped where it is not wanted any more, and DownloadFailed
        for anything that may pass.
        """
        with self.turn(download.target, deadline), self._slot(deadline):
            if download.target.is_file():
                return
            try:
                download.target.parent.mkdir(parents=True, exist_ok=True)
                self._fetch(download, deadline)
            except OSError as error:
                raise DiskTrouble(f"{download.target.name}: {error.strerror}") from error

    def _fetch(self, download: Download, deadline: float) -> None:
        with _Part(download.target.with_name(download.target.name + PART)) as part:
            if part.size_bytes and not part.is_whole(download):
                self._fill(part, download, deadline)
                if download.sha256 and not part.is_whole(download):
                    part.restart()  # what lay there was not the beginning of it
            if part.size_bytes == 0:
                self._fill(part, download, deadline)
            _verify(part, download)
            part.sync()
            _insist(part, download)
        move_over(part.path, download.target)

    def _fill(self, part: _Part, download: Download, deadline: float) -> None:
        """Stream until the file is complete, trying again while that brings more of it."""
        failures = 0
        while True:
            size_bytes = part.size_bytes
            try:
                return self._stream(part, download, deadline)
            except TryLater as error:
                failures = 1 if part.size_bytes > size_bytes else failures + 1
                if failures >= _TRIES:
                    raise
                wait_until_next_try(error, self._pause_seconds * failures, deadline)

    def _stream(self, part: _Part, download: Download, deadline: float) -> None:
        with self._web.get(download.url, deadline, start_byte=part.size_bytes) as answer:
            total_bytes = _total_bytes(answer, part)
            _raise_if_too_large(part, download, total_bytes or 0)
            for chunk in answer.chunks:
                part.add(chunk)
                if not download.is_wanted():
                    raise DownloadStopped(f"{download.target.name}: its download is stopped")
                _raise_if_too_large(part, download, part.size_bytes)
        if total_bytes is not None and part.size_bytes < total_bytes:
            raise TryLater(f"{answer.site}: cut off at {part.size_bytes} of {total_bytes} bytes")

    @contextmanager
    def _slot(self, deadline: float) -> Generator[None]:
        if not self._slots.acquire(timeout=_seconds_till(deadline)):
            raise DownloadFailed("other downloads took all the time that the job has")
        try:
            yield
        finally:
            self._slots.release()


class _Turns:
    """A lock per name, which exists while somebody has it or waits for it."""

    def __init__(self):
        self._lock = threading.Lock()
        self._turns: dict[str, tuple[threading.RLock, int]] = {}

    @contextmanager
    def turn(self, name: str, deadline: float) -> Generator[None]:
        turn = self._join(name)
        try:
            if not turn.acquire(timeout=_seconds_till(deadline)):
                raise DownloadFailed("another job's download of it took all the time")
            try:
                yield
            finally:
                turn.release()
        finally:
            self._leave(name)

    def _join(self, name: str) -> threading.RLock:
        with self._lock:
            turn, waiting = self._turns.get(name, (threading.RLock(), 0))
            self._turns[name] = turn, waiting + 1
            return turn

    def _leave(self, name: str) -> None:
        with self._lock:
            turn, waiting = self._turns.pop(name)
            if waiting > 1:
                self._turns[name] = turn, waiting - 1


class _Part:
    """The beginning of a file on disk, and the sha256 of it."""

    def __init__(self, path: Path):
        self.path = path
        self._file = open_to_append(path)
        _lock(self._file, path)
        self._hash = hashlib.sha256()
        self.size_bytes = 0
        self._file.seek(0)
        while block := self._file.read(_BLOCK_BYTES):
            self._hash.update(block)
            self.size_bytes += len(block)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()
        if self.size_bytes == 0:
            self.path.unlink(missing_ok=True)

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def is_whole(self, download: Download) -> bool:
        """Whether it is all of the file, as far as that can be told."""
        return self.sha256 == download.sha256

    def add(self, chunk: bytes) -> None:
        self._file.write(chunk)
        self._hash.update(chunk)
        self.size_bytes += len(chunk)

    def restart(self) -> None:
        """Forget all of it."""
        self._file.truncate(0)
        self._hash = hashlib.sha256()
        self.size_bytes = 0

    def sync(self) -> None:
        """On return it survives a power cut."""
        self._file.flush()
        os.fsync(self._file.fileno())


def _lock(file: BinaryIO, path: Path) -> None:
    """Two processes that write to one file would spoil it. The lock ends when the file closes."""
    try:
        _take_lock(file)
    except (BlockingIOError, PermissionError) as error:
        file.close()
        raise DownloadFailed(f"{path.stem}: another process is downloading it") from error


if sys.platform == "win32":
    import msvcrt

    def _take_lock(file: BinaryIO) -> None:
        """Windows keeps others from what is locked: that is a byte that no file has."""
        file.seek(_LOCKED_BYTE)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _take_lock(file: BinaryIO) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _seconds_till(deadline: float) -> float:
    return min(max(0.0, deadline - elapsed_seconds()), threading.TIMEOUT_MAX)


def _total_bytes(answer: Answer, part: _Part) -> int | None:
    """How long the file is to be, None where the site does not say.

    Empties the part when the answer does not go on where it ends.
    """
    if answer.status == 416:
        part.restart()
        raise TryLater(f"{answer.site}: the file is shorter than what came of it")
    going_on = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    if answer.status == 206 and going_on and int(going_on[1]) == part.size_bytes:
        return int(going_on[2])
    part.restart()
    if answer.status == 206:
        raise TryLater(f"{answer.site}: sent another part of the file than was asked for")
    length = answer.headers.get("Content-Length", "")
    return int(length) if _LENGTH.fullmatch(length) else None


def _raise_if_too_large(part: _Part, download: Download, size_bytes: int) -> None:
    if size_bytes > download.room_bytes:
        more_mib = math.ceil((size_bytes - download.room_bytes) / (1 << 20))
        told = f"no room on the disk: free {more_mib} MiB or more in {download.target.parent}"
        raise DiskTrouble(f"{download.target.name}: {told}")
    if size_bytes > download.most_bytes:
        part.restart()
        raise DownloadRefused(
            f"{download.target.name}: larger than {download.most_bytes:.0f} bytes", _DAMAGED_SECONDS
        )


def _insist(part: _Part, download: Download) -> None:
    if download.insist is None:
        return
    try:
        download.insist(part.path)
    except ModelBroken as error:
        part.restart()
        raise DownloadRefused(f"{download.target.name}: {error}", _DAMAGED_SECONDS) from error


def _verify(part: _Part, download: Download) -> None:
    if download.sha256 and part.sha256 != download.sha256:
        part.restart()
        told = "the download isn't the expected file (its checksum differs); try again later"
        raise DownloadRefused(f"{download.target.name}: {told}", _DAMAGED_SECONDS)
