"""What a child process died of, for people."""

from __future__ import annotations

import signal
from pathlib import Path

VMSTAT = Path("/proc/vmstat")


def obituary(name: str, exit_code: int | None, oom_kills: int) -> str:
    """`oom_kills` is how many processes the system ended for want of memory since it started.

    >>> obituary("engine", -11, 0)
    'the engine process was ended by SIGSEGV'
    """
    if exit_code is None or exit_code >= 0:
        return f"the {name} process ended with exit code {exit_code}"
    ended = f"the {name} process was ended by {_signal_name(-exit_code)}"
    if exit_code == -9 and oom_kills > 0:
        return f"{ended}: the system ran out of memory (remedy: a larger ram_to_leave_free)"
    if exit_code == -signal.SIGBUS:
        return f"{ended}: a file that it had in memory was cut off, or can't be read any more"
    return ended


def count_oom_kills() -> int:
    """The system's own count since it started; 0 where it keeps none (it is Linux')."""
    try:
        counters = dict(line.split(" ", 1) for line in VMSTAT.read_text("ascii").splitlines())
    except OSError:
        return 0
    return int(counters.get("oom_kill", 0))


def _signal_name(number: int) -> str:
    names = {known.value: known.name for known in signal.Signals}
    return names.get(number, f"signal {number}")
