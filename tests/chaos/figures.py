"""What a worker takes at this moment: memory, threads, open files, and bytes on the disk."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil

from tests.chaos.service import Service


@dataclass(frozen=True, slots=True)
class Figures:
    """`age`: seconds that the process has lived. `children`: resident bytes of each."""

    age: float
    memory_bytes: int
    threads: int
    files: int
    children: tuple[int, ...]
    state_bytes: int
    log_bytes: int

    @classmethod
    def of(cls, service: Service) -> Self:
        """Raises psutil.NoSuchProcess where the worker has just ended."""
        worker = psutil.Process(service.pid)
        with worker.oneshot():
            return cls(
                age=time.time() - worker.create_time(),
                memory_bytes=worker.memory_info().rss,
                threads=worker.num_threads(),
                files=worker.num_fds(),
                children=tuple(map(_resident_bytes, service.children())),
                state_bytes=bytes_of(service.home / "state"),
                log_bytes=bytes_of(service.home / "logs"),
            )

    def __str__(self) -> str:
        children = " ".join(f"{size >> 20}" for size in self.children)
        return (
            f"{self.memory_bytes >> 20} MiB, {self.threads} threads, {self.files} files after"
            f" {self.age:.0f} s, children {children} MiB, state {self.state_bytes >> 10} KiB,"
            f" logs {self.log_bytes >> 10} KiB"
        )


def bytes_of(folder: Path) -> int:
    """Those of all files in it that are there at this moment."""
    return sum(map(_size, folder.rglob("*")))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except FileNotFoundError:
        return 0


def _resident_bytes(process: psutil.Process) -> int:
    try:
        return process.memory_info().rss
    except psutil.NoSuchProcess:
        return 0
