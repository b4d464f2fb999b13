"""A real file system of a few kilobytes, or one that can't be written, where we may mount one."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, size_kib: int, options: str = "rw") -> Generator[Path]:
    """Mounts it on `folder`; skips the test where this user may not mount (only root may)."""
    folder.mkdir(exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size_kib}k,{options}", "none", str(folder)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("needs the right to mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def failing_disk(folder: Path, image: Path) -> Generator[Callable[[], object]]:
    """Mounts the new disk in the file `image` on `folder`; gives what lets the disk fail.

    The system then takes the right to write on it away, also from those who have files open.
    """
    folder.mkdir(exist_ok=True)
    with image.open("wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)
    options = "loop,errors=remount-ro"
    subprocess.run(["mount", "-o", options, str(image), str(folder)], check=True)
    found = ["findmnt", "-no", "SOURCE", "--target", str(folder)]
    device = subprocess.run(found, capture_output=True, check=True, text=True).stdout.strip()
    trigger = Path("/sys/fs/ext4", Path(device).name, "trigger_fs_error")
    try:
        yield lambda: trigger.write_text("1", "utf-8")
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def fill(folder: Path) -> None:
    """Not a byte is left: the file `filler` takes them."""
    with (folder / "filler").open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                continue
