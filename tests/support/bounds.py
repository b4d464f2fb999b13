"""What a reader of a stranger's bytes may take, whatever they are."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

MOST_SECONDS = 2.0  # of the processor, so that a busy machine changes nothing
MOST_BYTES = 64 << 20  # by which the process may become larger than it ever was


def peak_bytes() -> int:
    """The most main memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def frugal(read: Callable[P, R]) -> Callable[P, R]:
    """Fails where one call takes more; beneath `given`, each example is a call."""

    @wraps(read)
    def measured(*arguments: P.args, **named: P.kwargs) -> R:
        peak, began = peak_bytes(), time.process_time()
        told = read(*arguments, **named)
        assert time.process_time() - began < MOST_SECONDS
        assert peak_bytes() - peak < MOST_BYTES
        return told

    return measured
