"""LoRA files on disk, and textual inversions: one folder each, within a quota of bytes.

A file that was downloaded is called by its CivitAI ids, never by a name that somebody sent, and
has a record beside it (`<ids>.dreamer.json`), whose mtime is the time of last use. Whatever else
lies in the folder was put there by the owner: found by its file's name, and never removed.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections import defaultdict
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter

from hordelib.errors import DiskTrouble, DownloadFailed
from hordelib.files.json_file import JsonFile
from hordelib.files.whole_files import PART, size_on_disk
from worker.loras.files import RECORD, SUFFIX, Choice, LoraFile, LoraRecord

log = logging.getLogger(__name__)

_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Quota:
    """Most bytes of downloaded files, and the free bytes of the disk that they must leave.

    `free_bytes` measures the disk; the owner's own files do not count.
    """

    most_bytes: Callable[[], int]
    floor_bytes: int
    free_bytes: Callable[[], int]


_RECORDS = TypeAdapter(LoraRecord)


class LoraStore:
    """The files of one folder. Any thread may use it; one process at a time downloads into it.

    A file that `find` or `arrival` gave out is held for the job of that name, and never removed
    before `release`.
    """

    def __init__(self, folder: Path, quota: Quota):
        self._folder = folder
        self._quota = quota
        self._lock = threading.RLock()
        self._holders: dict[str, set[str]] = defaultdict(set)
        self._arriving: dict[str, int] = {}
        folder.mkdir(parents=True, exist_ok=True)
        self._ours = {file.path.name: file for file in self._recorded()}
        self._keep_quota()

    def path_of(self, stem: str) -> Path:
        """Where a file of this name lies, or would."""
        return self._folder / f"{stem}{SUFFIX}"

    def files(self) -> list[LoraFile]:
        """Every file that is there and whole, by name; forgets what vanished."""
        with self._lock:
            for file in list(self._ours.values()):
                whole = _whole(file)
                if whole is None:
                    self._remove(file)
                else:
                    self._ours[file.path.name] = whole
            return sorted([*self._ours.values(), *self._owners()], key=lambda file: file.path.name)

    def find(self, choose: Choice, job_id: str) -> LoraFile | None:
        """The file that `choose` picks, held for the job; None where it picks none."""
        with self._lock:
            chosen = choose(self.files())
            if chosen is not None and chosen.is_ours:
                self._hold(chosen, job_id)
            return chosen

    def release(self, job_id: str) -> None:
        """The job needs none of its files any more. Does nothing for a job that held none."""
        with self._lock:
            for jobs in self._holders.values():
                jobs.discard(job_id)

    def remove(self, file: LoraFile) -> bool:
        """Whether it could go: not where a job needs it, or where it is the owner's."""
        with self._lock:
            ours = self._ours.get(file.path.name)
            if ours is None or self._holders[file.path.name]:
                return False
            self._remove(ours)
            return True

    @contextmanager
    def arrival(self, stem: str, about: LoraRecord, job_id: str) -> Generator[Path]:
        """Makes room for `about.size_bytes`; yields the path at which the block is to put the file.

        When the block ends well, the file is the store's and held for the job. Until then it is
        expected at the path with PART added. Raises DiskTrouble where there can be no room, and
        DownloadFailed for a name that is taken.
        """
        file = LoraFile(self.path_of(stem), about)
        self._expect(file)
        try:
            yield file.path
            self._adopt(file, job_id)
        finally:
            self._expect_no_longer(file)

    @property
    def most_bytes(self) -> int:
        """The quota, which the owner's own files don't count against."""
        return self._quota.most_bytes()

    @property
    def used_bytes(self) -> int:
        """What counts against the quota: files, those under way in full, and parts left over."""
        with self._lock:
            parts = sum(size_on_disk(part) for part in self._idle_parts())
            whole = sum(file.about.size_bytes for file in self._ours.values())
            return whole + parts + sum(self._arriving.values())

    # -- all below: with the lock held, but for what reads the folder at the start --

    def _recorded(self) -> Generator[LoraFile]:
        for record in self._folder.glob(f"*{RECORD}"):
            path = record.with_name(record.name.removesuffix(RECORD) + SUFFIX)
            read = _read(path, record)
            file = read and _whole(read)
            if file is None:
                why = "has changed" if read else "has a record that can't be read"
                log.info("%s %s: removed, it is downloaded again when it is asked for", path, why)
                path.unlink(missing_ok=True)
                record.unlink(missing_ok=True)
            else:
                yield file

    def _owners(self) -> list[LoraFile]:
        return [
            LoraFile(path, LoraRecord(name=path.stem, size_bytes=size_on_disk(path)))
            for path in self._folder.glob(f"*{SUFFIX}")
            if path.name not in self._ours and path.name not in self._arriving
        ]

    def _hold(self, file: LoraFile, job_id: str) -> None:
        self._holders[file.path.name].add(job_id)
        os.utime(_record_of(file.path))

    def _expect(self, file: LoraFile) -> None:
        with self._lock:
            self._folder.mkdir(parents=True, exist_ok=True)  # somebody may have removed it
            self._give_way(file.path)
            self._make_room(file)
            _write(file)
            self._arriving[file.path.name] = file.about.size_bytes

    def _give_way(self, path: Path) -> None:
        """Another version may have the same name, where jobs call the file by the model's id."""
        if path.name in self._ours and not self._holders[path.name]:
            self._remove(self._ours[path.name])
        if path.name in self._ours:
            raise DownloadFailed(f"{path.name}: another version of it is in use")
        if path.exists():
            raise DownloadFailed(f"{path}: a file of yours has this name; rename it")

    def _expect_no_longer(self, file: LoraFile) -> None:
        with self._lock:
            del self._arriving[file.path.name]
            if file.path.name not in self._ours:
                file.path.unlink(missing_ok=True)
                _record_of(file.path).unlink(missing_ok=True)

    def _adopt(self, file: LoraFile, job_id: str) -> None:
        with self._lock:
            whole = _measured(file)
            self._arriving[file.path.name] = 0  # it counts as one that is there from now on
            self._ours[file.path.name] = whole
            self._hold(whole, job_id)
            self._keep_quota()

    def _make_room(self, file: LoraFile) -> None:
        """Raises DownloadFailed before anything is removed, when all of it would not do."""
        removable = self._removable(_part_of(file.path))
        missing_bytes = self._missing_bytes(file)
        if missing_bytes > sum(size_on_disk(path) for path in removable):
            raise DiskTrouble(
                f"no room for {file.about.size_bytes / _MIB:.1f} MiB: files in use and the disk's"
                " reserve take the rest; raise max_lora_cache_size, or free disk space"
            )
        for path in removable:
            if self._missing_bytes(file) <= 0:
                break
            self._remove_path(path)

    def _keep_quota(self) -> None:
        """Remove what is too much: the quota may be a new one, and a file larger than was said."""
        for path in self._removable(own_part=self._folder):
            if self.used_bytes <= self.most_bytes:
                break
            self._remove_path(path)

    def _missing_bytes(self, file: LoraFile) -> int:
        """Bytes to be removed before the file may come, as the disk says now."""
        size_bytes = file.about.size_bytes
        own_part = size_on_disk(_part_of(file.path))
        to_come = sum(
            size - size_on_disk(_part_of(self._folder / name))
            for name, size in self._arriving.items()
        )
        over_quota = self.used_bytes - own_part + size_bytes - self.most_bytes
        reserved = self._quota.floor_bytes + to_come + size_bytes - own_part
        return max(over_quota, reserved - self._quota.free_bytes())

    def _removable(self, own_part: Path) -> list[Path]:
        """What may go, least recently used first."""
        idle = [(part.stat().st_mtime, part) for part in self._idle_parts() if part != own_part]
        unused = [
            (_record_of(file.path).stat().st_mtime, file.path)
            for file in self.files()
            if file.is_ours and not self._holders[file.path.name]
        ]
        return [path for _, path in sorted([*idle, *unused])]

    def _idle_parts(self) -> list[Path]:
        return [
            part
            for part in self._folder.glob(f"*{SUFFIX}{PART}")
            if part.name.removesuffix(PART) not in self._arriving
        ]

    def _remove_path(self, path: Path) -> None:
        if path.name in self._ours:
            self._remove(self._ours[path.name])
        else:
            path.unlink(missing_ok=True)

    def _remove(self, file: LoraFile) -> None:
        """The file goes before its record: one without would be taken for the owner's."""
        file.path.unlink(missing_ok=True)
        _record_of(file.path).unlink(missing_ok=True)
        del self._ours[file.path.name]


def _write(file: LoraFile) -> None:
    JsonFile(_record_of(file.path), _RECORDS).write(file.about)


def _read(path: Path, record: Path) -> LoraFile | None:
    """None for a record that can't be read, or would never let its file go."""
    about = JsonFile(record, _RECORDS).read()
    return LoraFile(path, about) if about and about.version_id else None


def _record_of(path: Path) -> Path:
    return path.with_name(path.stem + RECORD)


def _part_of(path: Path) -> Path:
    return path.with_name(path.name + PART)


def _whole(file: LoraFile) -> LoraFile | None:
    """The file, if it is what was downloaded: read again where it changed since; None otherwise."""
    try:
        status = file.path.stat()
        if status.st_size != file.about.size_bytes or not _record_of(file.path).is_file():
            return None
        if status.st_mtime_ns == file.about.mtime_ns:
            return file
        with file.path.open("rb") as opened:
            found = hashlib.file_digest(opened, "sha256").hexdigest()
        return _measured(file) if found == file.about.sha256 else None
    except OSError:
        return None


def _measured(file: LoraFile) -> LoraFile:
    """With its size and time as they are now, also in its record, whose own time stays."""
    status = file.path.stat()
    about = replace(file.about, size_bytes=status.st_size, mtime_ns=status.st_mtime_ns)
    measured, record = LoraFile(file.path, about), _record_of(file.path)
    used = record.stat().st_atime_ns, record.stat().st_mtime_ns
    _write(measured)
    os.utime(record, ns=used)
    return measured
