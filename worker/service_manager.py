"""What systemd is about to do with the service that this process is."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

CGROUPS = Path("/proc/self/cgroup")
ASK_SECONDS = 3.0


def restart_follows() -> bool:
    """Whether a stop at this moment is the first half of `systemctl restart`.

    Only the queue of the manager's jobs tells it from `systemctl stop`. False where nobody knows.
    """
    unit = _unit()
    if not unit or "INVOCATION_ID" not in os.environ:
        return False
    manager = "--user" if "MANAGERPID" in os.environ else "--system"
    command = ["systemctl", manager, "list-jobs", "--plain", "--full", "--no-legend", unit]
    try:
        told = subprocess.run(
            command, capture_output=True, timeout=ASK_SECONDS, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    # A line is: number, unit, kind of job, its state.
    jobs = [line.split()[1:3] for line in told.stdout.decode("utf-8", "replace").splitlines()]
    return [unit, "restart"] in jobs


def _unit() -> str:
    """The service that this process belongs to, "" for none."""
    try:
        lines = CGROUPS.read_text("utf-8", "replace").splitlines()
    except OSError:
        return ""
    for line in lines:
        _, controllers, group = line.split(":", 2) if line.count(":") > 1 else ("", "-", "")
        unit = group.rpartition("/")[2]
        if controllers in ("", "name=systemd") and unit.endswith(".service"):
            return unit
    return ""
