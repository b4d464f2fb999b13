"""A call to a name where the system's resolver hears nothing, in a network of its own.

Run by `in_a_network_of_its_own`; prints what became of the call.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

from worker.errors import HordeUnreachable
from worker.horde_client import HordeClient

# Linux's own tools: the network has this machine alone, and its name server is this machine.
_SCRIPT = 'ip link set lo up && mount --bind "$1" /etc/resolv.conf && exec "$2" $3'


def in_a_network_of_its_own(folder: Path) -> list[str]:
    """The command that runs this module. `folder`: for its configuration."""
    servers = folder / "resolv.conf"
    servers.write_text("nameserver 127.0.0.1\n")
    network = ["unshare", "--map-root-user", "--mount", "--net", "sh", "-c", _SCRIPT, "sh"]
    return [*network, str(servers), sys.executable, f"-P -m {__name__}"]


def is_possible(folder: Path) -> bool:
    """Whether this system lets its users have such a network."""
    command = in_a_network_of_its_own(folder)
    command[-2:] = ["true", ""]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


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
