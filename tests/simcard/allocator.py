"""The arithmetic of torch's caching allocator on a card, without any memory behind it.

Rules and sizes are those of c10/cuda/CUDACachingAllocator.cpp: blocks are multiples of 512 bytes,
cut from segments of 2 MiB (for up to 1 MiB), 20 MiB (for up to 10 MiB) or their own size; free
neighbours are joined, and a segment goes back to the driver as a whole only.
"""

from __future__ import annotations

import bisect
import itertools
import threading
from collections.abc import Callable

LEAST, SMALL = 512, 1 << 20
SMALL_SEGMENT, LARGE_SEGMENT = 2 << 20, 20 << 20
OWN_SEGMENT, SEGMENT_UNIT = 10 << 20, 2 << 20


class OutOfRoom(Exception):
    """The driver has no segment left, though all that is unused was given back."""


class Block:
    """A stretch of a segment, in use or not, between its neighbours."""

    __slots__ = ("after", "before", "is_small", "number", "segment_bytes", "size_bytes", "used")

    def __init__(self, size_bytes: int, is_small: bool, number: int, segment_bytes: int):
        self.size_bytes, self.is_small, self.number = size_bytes, is_small, number
        self.segment_bytes = segment_bytes
        self.before: Block | None = None
        self.after: Block | None = None
        self.used = False

    @property
    def is_segment(self) -> bool:
        return self.before is None and self.after is None


class CachingAllocator:
    """Blocks of the segments that it has of the driver; `room_bytes` says how much that may be."""

    def __init__(self, room_bytes: Callable[[], int]):
        self._room_bytes = room_bytes
        self._mutex = threading.RLock()
        self._numbers = itertools.count()
        self._unused: dict[bool, list[tuple[int, int, Block]]] = {True: [], False: []}
        self.reserved_bytes = self.allocated_bytes = 0
        self.peak_bytes = self.peak_reserved_bytes = 0

    def take(self, wanted_bytes: int) -> Block:
        """Raises OutOfRoom."""
        size_bytes = max(LEAST, _up_to(wanted_bytes, LEAST))
        with self._mutex:
            block = self._best(size_bytes) or self._segment(size_bytes)
            self._cut(block, size_bytes)
            block.used = True
            self.allocated_bytes += block.size_bytes
            self.peak_bytes = max(self.peak_bytes, self.allocated_bytes)
            self.peak_reserved_bytes = max(self.peak_reserved_bytes, self.reserved_bytes)
            return block

    def give(self, block: Block) -> None:
        """It is unused from now on, as one with its unused neighbours."""
        with self._mutex:
            self.allocated_bytes -= block.size_bytes
            if block.before is not None and not block.before.used:
                self._pull(block.before)
                block = _joined(block.before, block)
            if block.after is not None and not block.after.used:
                self._pull(block.after)
                block = _joined(block, block.after)
            self._put(block)

    def empty_cache(self) -> None:
        """Give unused segments back to the driver."""
        with self._mutex:
            for is_small, unused in self._unused.items():
                whole = [block for *_, block in unused if block.is_segment]
                self.reserved_bytes -= sum(block.segment_bytes for block in whole)
                self._unused[is_small] = [each for each in unused if not each[2].is_segment]

    def forget_peak(self) -> None:
        self.peak_bytes, self.peak_reserved_bytes = self.allocated_bytes, self.reserved_bytes

    def _best(self, size_bytes: int) -> Block | None:
        unused = self._unused[size_bytes <= SMALL]
        i = bisect.bisect_left(unused, (size_bytes, -1))
        return unused.pop(i)[2] if i < len(unused) else None

    def _segment(self, size_bytes: int) -> Block:
        is_small = size_bytes <= SMALL
        segment_bytes = _segment_bytes(size_bytes)
        if self.reserved_bytes + segment_bytes > self._room_bytes():
            self.empty_cache()
        if self.reserved_bytes + segment_bytes > self._room_bytes():
            raise OutOfRoom
        self.reserved_bytes += segment_bytes
        return Block(segment_bytes, is_small, next(self._numbers), segment_bytes)

    def _cut(self, block: Block, size_bytes: int) -> None:
        """What is more than was asked for is a block of its own, where that is worth it."""
        rest_bytes = block.size_bytes - size_bytes
        if not (rest_bytes >= LEAST if block.is_small else rest_bytes > SMALL):
            return
        rest = Block(rest_bytes, block.is_small, next(self._numbers), block.segment_bytes)
        rest.before, rest.after = block, block.after
        if block.after is not None:
            block.after.before = rest
        block.after, block.size_bytes = rest, size_bytes
        self._put(rest)

    def _put(self, block: Block) -> None:
        block.used = False
        bisect.insort(self._unused[block.is_small], (block.size_bytes, block.number, block))

    def _pull(self, block: Block) -> None:
        unused = self._unused[block.is_small]
        del unused[bisect.bisect_left(unused, (block.size_bytes, block.number))]


def _joined(first: Block, second: Block) -> Block:
    first.size_bytes += second.size_bytes
    first.after = second.after
    if second.after is not None:
        second.after.before = first
    return first


def _segment_bytes(size_bytes: int) -> int:
    if size_bytes <= SMALL:
        return SMALL_SEGMENT
    return LARGE_SEGMENT if size_bytes < OWN_SEGMENT else _up_to(size_bytes, SEGMENT_UNIT)


def _up_to(size_bytes: int, unit: int) -> int:
    return -(-size_bytes // unit) * unit
