"""What a reader of a stranger's bytes may take, whatever they are."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

MOST_SECONDS = 3.0
MOST_BYTES = 64 << 20

# A hostile file that is read to its end takes minutes. Processors differ by less than this, and so
# do the turns of one whose neighbours share its caches.
TOLERANCE = 4
REFERENCE_SECONDS = 0.05  # that `slowness` takes on an ordinary core


def peak_bytes() -> int:
    """The most main memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@contextmanager
def bounded(seconds: float = MOST_SECONDS, more_bytes: int = MOST_BYTES) -> Generator[None]:
    """Fails where the block takes more of an ordinary core's time, or more main memory.

    The seconds are those of this thread alone, and grow with the slowness of the machine. The bytes
    are those by which the process became larger than it had ever been.
    """
    peak, began = peak_bytes(), time.thread_time()
    yield
    took = time.thread_time() - began
    assert took < TOLERANCE * seconds or took < TOLERANCE * seconds * slowness()
    assert peak_bytes() - peak < more_bytes


def frugal(read: Callable[P, R]) -> Callable[P, R]:
    """`bounded` for a function; beneath `given`, each example is a call."""

    @wraps(read)
    def measured(*arguments: P.args, **named: P.kwargs) -> R:
        with bounded():
            return read(*arguments, **named)

    return measured


def slowness() -> float:
    """How many times as long as on an ordinary core a thread takes here now, at least 1."""
    began = time.thread_time()
    sum(number * number for number in range(1_000_000))
    return max(1.0, (time.thread_time() - began) / REFERENCE_SECONDS)
