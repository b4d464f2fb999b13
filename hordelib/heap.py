"""Memory that nobody needs, and the system does not know of yet."""

from __future__ import annotations

import ctypes
import mmap
import sys


def trim_heap() -> None:
    """Return what was freed: glibc's malloc_trim(3). Elsewhere there is none, nor the need."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def drop_pages(address: int, size_bytes: int) -> None:
    """Have this process let go of the whole pages in a range of a mapped file (madvise(2)).

    They stay in the system's cache of files while there is room, and come back when they are looked
    at; what was written to them would be lost.
    """
    if sys.platform == "linux":
        first = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE
        whole = (address + size_bytes) // mmap.PAGESIZE * mmap.PAGESIZE - first
        if whole > 0:
            libc = ctypes.CDLL(None)
            libc.madvise(ctypes.c_void_p(first), ctypes.c_size_t(whole), mmap.MADV_DONTNEED)
