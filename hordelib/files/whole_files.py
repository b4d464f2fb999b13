"""Files that are there with all their content or as they were before.

State, configuration and logs are their owner's alone. What lies in a folder of models may be read
by whom the umask lets: several accounts may share one. No link is followed where one is written: in
a folder that others may write to, they could lead anywhere.
"""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

PART = ".part"  # added to the name of a file that is not complete
# Windows has no such flag: whoever makes a link there is an administrator, or in developer mode.
_NO_LINK = 0 if sys.platform == "win32" else os.O_NOFOLLOW

TRY_SECONDS = 0.05
TRIES = 40 if sys.platform == "win32" else 1


def size_on_disk(path: Path) -> int:
    """Bytes of a file, 0 where there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def write_whole(path: Path, content: bytes) -> None:
    """Write it at once or not at all, for the owner alone. Raises OSError."""
    _write(path, content, for_owner)


def write_shared(path: Path, content: bytes) -> None:
    """Write it at once or not at all, for those whom the umask lets. Raises OSError."""
    _write(path, content, _for_readers)


def _write(path: Path, content: bytes, opener: Callable[[str, int], int]) -> None:
    fresh = path.with_name(f"{path.name}.new")
    with _open_new(fresh, opener) as file:
        file.write(content)
    move_over(fresh, path)


def move_over(fresh: Path, path: Path, tries: int = TRIES) -> None:
    """Rename it to `path`, in place of what had the name. Raises OSError.

    Windows forbids that while anybody has the other file open, a reader or a scanner for viruses:
    there it is tried again for two seconds.
    """
    for _ in range(tries - 1):
        with suppress(PermissionError):
            fresh.replace(path)
            return
        time.sleep(TRY_SECONDS)
    fresh.replace(path)


def put_aside(path: Path) -> str:
    """Rename what can't be read, so that it is not overwritten; words for it, "" if that failed."""
    aside = path.with_name(f"{path.name}.unread")
    try:
        move_over(path, aside)
    except OSError:
        return ""
    return f"; put aside as {aside.name}"


def open_new(path: Path) -> BinaryIO:
    """An empty file for the owner alone, in place of what had the name. Raises OSError."""
    return _open_new(path, for_owner)


def _open_new(path: Path, opener: Callable[[str, int], int]) -> BinaryIO:
    path.unlink(missing_ok=True)
    return open(path, "xb", opener=opener)


def open_to_append(path: Path) -> BinaryIO:
    """A file for those whom the umask lets, such as a model's, to be read and to grow.

    Raises OSError.
    """
    return open(path, "a+b", opener=_for_readers)


def _for_readers(path: str, flags: int) -> int:
    return os.open(path, flags | _NO_LINK, 0o664)


def for_owner(path: str, flags: int) -> int:
    """An opener for `open`: what it creates is for the owner alone, and a link is an OSError."""
    return os.open(path, flags | _NO_LINK, 0o600)


OWNER_ONLY = 0o077  # the permissions that nobody else may have


def make_private(folder: Path) -> None:
    """Create it, or close it: for what others shall neither read nor write. Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    close_to_others(folder)


def anybody_may_write(path: Path) -> bool:
    """Whether any account of this machine can change what lies in a folder."""
    try:
        return os.name != "nt" and bool(path.stat().st_mode & stat.S_IWOTH)
    except OSError:
        return False


def close_to_others(path: Path) -> bool:
    """Take every permission from all but the owner; whether others had any. Raises OSError."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if os.name == "nt" or not mode & OWNER_ONLY:
        return False
    path.chmod(mode & ~OWNER_ONLY)
    return True
