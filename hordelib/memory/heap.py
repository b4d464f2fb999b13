"""Memory that nobody needs, and the system does not know of yet."""

from __future__ import annotations

import ctypes
import mmap
import sys

ARENA_MAX, MMAP_THRESHOLD, TOP_PAD, TRIM_THRESHOLD = -8, -3, -2, -1  # of glibc's malloc.h
LARGEST_IN_HEAP_BYTES = 32 << 20  # a larger piece is mapped for itself; glibc allows no more
KEPT_BYTES = 64 << 20  # at the heap's end; once twice as much is free there, the rest goes back


def keep_heap() -> None:
    """Have all threads of this process share one heap that keeps what is freed: mallopt(3).

    What one step of a sampler frees, the next one takes. Given back in between, it comes as new
    pages that the system has to clear, which may be gigabytes a job, the more so in a thread's own
    heap, which is cut every 64 MiB. It holds for threads that start afterwards. Elsewhere there is
    no mallopt, nor the need.
    """
    if sys.platform == "linux":
        option = getattr(ctypes.CDLL(None), "mallopt", None)
        if option is not None:
            option(ARENA_MAX, 1)
            option(MMAP_THRESHOLD, LARGEST_IN_HEAP_BYTES)
            option(TOP_PAD, KEPT_BYTES)
            option(TRIM_THRESHOLD, 2 * KEPT_BYTES)


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
