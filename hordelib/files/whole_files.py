"""Files that are there with all their content or as they were before, and are their owner's.

No link is followed where one is written: in a folder that others may write to, they could lead
anywhere.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

PART = ".part"  # added to the name of a file that is not complete


def size_on_disk(path: Path) -> int:
    """Bytes of a file, 0 where there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def write_whole(path: Path, content: bytes) -> None:
    """Write it at once or not at all, for the owner alone. Raises OSError."""
    fresh = path.with_name(f"{path.name}.new")
    with open_new(fresh) as file:
        file.write(content)
    fresh.replace(path)


def open_new(path: Path) -> BinaryIO:
    """An empty file for the owner alone, in place of what had the name. Raises OSError."""
    path.unlink(missing_ok=True)
    return open(path, "xb", opener=for_owner)


def open_to_append(path: Path) -> BinaryIO:
    """A file that others may read, such as a model's, to be read and to grow. Raises OSError."""
    return open(path, "a+b", opener=_for_readers)


def _for_readers(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o644)


def for_owner(path: str, flags: int) -> int:
    """An opener for `open`: what it creates is for the owner alone, and a link is an OSError."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)
