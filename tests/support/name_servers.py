"""Calls to names of which the system asks a name server of ours, in a network of its own.

Run as a module there, it prints what became of the calls.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from itertools import chain, repeat
from pathlib import Path
from threading import Thread

import pytest

from hordelib.errors import JobError
from tests.support.raw_server import raw_server, saying
from worker.errors import HordeUnreachable
from worker.horde.client import HordeClient
from worker.line.source_fetcher import SourceFetcher

# Linux's own tools: the network has this machine alone, and its name server is this machine.
_SCRIPT = 'ip link set lo up && mount --bind "$0" /etc/resolv.conf && exec "$@"'
_PROJECT = Path(__file__).parents[2]
_A = b"\0\1"  # the kind of question for IPv4 addresses


def run(folder: Path, server: str) -> str:
    """What one of SERVERS prints in a network of its own, whose configuration is in `folder`.

    Skips the test where the system does not let its users have such a network.
    """
    if not _is_possible(folder):
        pytest.skip("this system has no network namespaces for its users")
    return _run(folder, sys.executable, "-m", __name__, server).stdout


def _is_possible(folder: Path) -> bool:
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


def deaf() -> None:
    """It never answers. Prints first when the call began."""
    with _name_server():
        url = "http://horde.example.org"
        print(time.monotonic())  # which is the same clock in all processes of Linux
        with HordeClient(url, "0000000000", timeout=(0.3, 0.3), client_agent="A") as client:
            try:
                client.heartbeat()
            except HordeUnreachable as error:
                print(error, error.may_have_worked)


def moving() -> None:
    """DNS rebinding: from the second question on, the name is this machine's."""
    with (
        _name_server() as server,
        raw_server(saying(b"HTTP/1.1 200 OK\r\n\r\n")) as here,
    ):
        addresses = chain(["10.255.255.1"], repeat("127.0.0.1"))
        Thread(target=_serve, args=(server, addresses), daemon=True).start()
        fetcher = SourceFetcher("http://10.0.0.1", client_agent="A", try_seconds=2, seconds=4)
        try:
            fetcher.fetch(f"http://moving.test:{here.port}/a.webp")
        except JobError as error:
            print(error, here.heard)


SERVERS = {"deaf": deaf, "moving": moving}


@contextmanager
def _name_server() -> Generator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 53))
        yield server


def _serve(server: socket.socket, addresses: Iterator[str]) -> None:
    """RFC 1035: an address for each question of that kind, and none for any other."""
    while True:
        query, asker = server.recvfrom(512)
        end = query.index(b"\0", 12) + 5
        found = b""
        if query[end - 4 : end - 2] == _A:
            address = socket.inet_aton(next(addresses))
            found = b"\xc0\x0c" + _A + b"\0\1" + bytes(4) + b"\0\4" + address
        counts = b"\0\1" + (b"\0\1" if found else bytes(2)) + bytes(4)
        server.sendto(query[:2] + b"\x81\x80" + counts + query[12:end] + found, asker)


if __name__ == "__main__":
    SERVERS[sys.argv[1]]()
