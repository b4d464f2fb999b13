"""The signals that ask a worker to stop, as far as this system has them."""

from __future__ import annotations

import signal

# Ctrl-C, the system's stop, and the terminal's end.
STOP_SIGNALS = frozenset(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
