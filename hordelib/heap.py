"""What the C library keeps of freed memory."""

from __future__ import annotations

import ctypes
import sys


def trim_heap() -> None:
    """Return it to the system: glibc's malloc_trim(3). Elsewhere there is none, nor the need."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
