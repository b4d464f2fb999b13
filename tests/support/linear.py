"""How the time of a piece of work grows with its size."""

from __future__ import annotations

import time
from collections.abc import Callable

MOST_GROWTH = 2.5  # times as long for twice as much; what grows with the square takes four times


def growth(work: Callable[[int], object], size: int) -> float:
    """How many times longer 2 * size takes than `size`; the lowest of up to five comparisons.

    The clock is the thread's own, so that a busy machine changes little.
    """
    lowest = float("inf")
    for _ in range(5):
        lowest = min(lowest, _fastest(work, 2 * size) / _fastest(work, size))
        if lowest <= MOST_GROWTH:
            break
    return lowest


def _fastest(work: Callable[[int], object], size: int) -> float:
    return min(_seconds(work, size) for _ in range(3))


def _seconds(work: Callable[[int], object], size: int) -> float:
    started = time.thread_time()
    work(size)
    return time.thread_time() - started
