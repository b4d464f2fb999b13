"""What the machine says of its main memory, under the limit of a container.

Nothing here remembers anything: each call asks again, so what other programs use counts.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil

ROOT = Path("/")
PAGE_BYTES = mmap.PAGESIZE


class Memory(NamedTuple):
    """One reading."""

    total_bytes: int
    free_bytes: int


def main_memory(root: Path = ROOT) -> Memory:
    """What this process may still use: of the machine, and of each control group that it is in.

    Pages of files that the kernel can drop at any time count as free, in a container as outside.
    `root` is where /proc and /sys are.
    """
    machine = psutil.virtual_memory()
    readings = [Memory(machine.total, machine.available), *_group_readings(root, machine.total)]
    return Memory(*(min(values) for values in zip(*readings, strict=True)))


def anonymous_bytes(root: Path = ROOT) -> int:
    """What this process has of main memory that is no file's; 0 where there is no /proc.

    It is asked for many times a second, and statm is the page counts alone, without 50 other lines.
    """
    try:
        with open(f"{root}/proc/self/statm", "rb", buffering=0) as file:
            _, resident, shared, *_ = file.read().split()
    except OSError:
        return 0
    return (int(resident) - int(shared)) * PAGE_BYTES


class _Files(NamedTuple):
    """Where a version of Linux' control groups keeps its numbers."""

    mount: str
    limit: str
    usage: str
    droppable: tuple[str, str]  # lines of memory.stat


_V1 = _Files(
    "sys/fs/cgroup/memory",
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    ("total_inactive_file", "total_active_file"),
)
_V2 = _Files("sys/fs/cgroup", "memory.max", "memory.current", ("inactive_file", "active_file"))


def _group_readings(root: Path, machine_bytes: int) -> Iterator[Memory]:
    """Of the process' own group and all above it; a limit may be set at any of them.

    One of more than the machine has (version 1 writes a huge number for none) says nothing.
    """
    for files, group in _groups(root):
        mount = root / files.mount
        own = mount / group
        for folder in (own, *own.parents):
            if not folder.is_relative_to(mount):
                break
            with suppress(OSError, ValueError, KeyError):  # "max", or hidden from a container
                limit_bytes = int((folder / files.limit).read_text())
                if limit_bytes < machine_bytes:
                    yield Memory(limit_bytes, _free_bytes(folder, files, limit_bytes))


def _groups(root: Path) -> Iterator[tuple[_Files, str]]:
    """From /proc/self/cgroup, with lines of `number:controllers:path`; version 2 names none."""
    try:
        lines = (root / "proc/self/cgroup").read_text("utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            yield (_V1 if controllers else _V2), path.lstrip("/")


def _free_bytes(folder: Path, files: _Files, limit_bytes: int) -> int:
    usage_bytes = int((folder / files.usage).read_text())
    stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    droppable_bytes = sum(int(stat[name]) for name in files.droppable)
    return max(0, limit_bytes - usage_bytes + droppable_bytes)
