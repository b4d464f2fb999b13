"""A call to a name where the system's resolver hears nothing, in a network of its own.

Started by `run`; prints what became of the call.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

from worker.errors import HordeUnreachable
from worker.horde_client import HordeClient

# Linux's own tools: the network has this machine alone, and its name server is this machine.
_SCRIPT = 'ip link set lo up && mount --bind "$0" /etc/resolv.conf && exec "$@"'
_PROJECT = Path(__file__).parents[1]


def run(folder: Path) -> str:
    """What this module prints in a network of its own. `folder`: for that one's configuration."""
    return _run(folder, sys.executable, "-m", __name__).stdout


def is_possible(folder: Path) -> bool:
    """Whether this system lets its users have such a network."""
    try:
        return _run(folder, "true").returncode == 0
    except FileNotFoundError:
        return False


def _run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    servers = folder / "resolv.conf"
    servers.write_text("nameserver 127.0.0.1\n")
    network = ["unshare", "--map-root-user", "--mount", "--net", "sh", "-c", _SCRIPT, str(servers)]
    return subprocess.run(
        [*network, *command], capture_output=True, text=True, check=False, cwd=_PROJECT, timeout=60
    )


def main() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as deaf:
        deaf.bind(("127.0.0.1", 53))
        url = "http://horde.example.org"
        with HordeClient(url, "0000000000", timeout=(0.3, 0.3), client_agent="A") as client:
            try:
                client.heartbeat()
            except HordeUnreachable as error:
                print(error, error.may_have_worked)


if __name__ == "__main__":
    main()
