"""The worker's own folder: readable by its owner alone, and for one worker at a time."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from hordelib.files.whole_files import make_private, write_whole
from worker.errors import StateTaken

STATE = "state"  # the folder's name, in the owner's
LOCK_SECONDS = 2.0  # whoever looks whether a worker runs has the lock for a moment
_LOCK, _PID = "lock", "pid"


class StateFolder:
    """Holds the folder's lock until `close`, or until the process ends, however it ends.

    The lock belongs to the open file, so a killed worker leaves none behind. `trouble` says why
    nothing can be kept in the folder; it is not locked then.
    """

    def __init__(self, path: Path):
        self.path = path
        self.trouble = ""
        self._lock = _lock_of(path)
        self._inode = 0  # of the locked file; 0: none

    @classmethod
    def open(cls, path: Path) -> StateFolder:
        """Create and lock it. Raises StateTaken, naming the process, while another one has it."""
        folder = cls(path)
        folder._take(LOCK_SECONDS)
        return folder

    def keep(self) -> None:
        """To be called often: takes a folder anew that was deleted under the worker.

        Raises StateTaken where another worker has it now.
        """
        if self._inode and not self._is_there():
            self.close()
            self._lock = _lock_of(self.path)
            self._take(0)

    def _take(self, timeout: float) -> None:
        try:
            make_private(self.path)
            self._lock.acquire(timeout=timeout)
            self._inode = (self.path / _LOCK).stat().st_ino
            write_whole(self.path / _PID, str(os.getpid()).encode())
        except Timeout as error:
            raise StateTaken(self.path, self._visible_holder()) from error
        except OSError as error:
            self.trouble = _trouble(self.path, error)

    def _is_there(self) -> bool:
        with suppress(OSError):
            return (self.path / _LOCK).stat().st_ino == self._inode
        return False

    @property
    def holder(self) -> int | None:
        """The process that has it, or had it last."""
        with suppress(OSError, ValueError):
            return int((self.path / _PID).read_text("ascii"))
        return None

    def _visible_holder(self) -> int | None:
        """Each container counts its processes anew: the number may be that of this one, or none."""
        holder = self.holder
        if holder is None or holder == os.getpid() or not psutil.pid_exists(holder):
            return None
        return holder

    def close(self) -> None:
        self._lock.release(force=True)


def is_taken(path: Path) -> bool:
    """Whether a worker runs with this folder."""
    if not (path / _LOCK).exists():
        return False
    lock = _lock_of(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except OSError:
        return False
    lock.release()
    return False


def _trouble(path: Path, error: OSError) -> str:
    """With the remedy."""
    if path.exists() and not path.is_dir():
        return f"{path} is a file, and the worker needs a folder of that name: move the file away"
    return f"{path}: {error.strerror}; make the folder writable"


def _lock_of(path: Path) -> FileLock:
    return FileLock(path / _LOCK, mode=0o600, thread_local=False)
