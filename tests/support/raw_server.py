"""A server of this machine that says just these bytes: what no decent HTTP server would."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

Talk = Callable[[socket.socket, bytes], None]


@dataclass
class Raw:
    port: int
    heard: list[bytes] = field(default_factory=list[bytes])  # the first piece of each request

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def raw_server(talk: Talk, *, receive_bytes: int = 0, peek: bool = False) -> Generator[Raw]:
    """Has `talk` answer each connection, in a thread of its own, with what was heard first.

    `receive_bytes`: how much the system takes in that nobody reads. `peek` leaves what was heard
    for `talk` to read.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        if receive_bytes:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        raw = Raw(listener.getsockname()[1])
        threads: list[threading.Thread] = []
        wires: list[socket.socket] = []

        def serve() -> None:
            while True:
                try:
                    wire, _ = listener.accept()
                except OSError:
                    return
                wires.append(wire)
                threads.append(threading.Thread(target=_talk, args=(talk, wire, raw, peek)))
                threads[-1].start()

        threads.append(threading.Thread(target=serve))
        threads[0].start()
        try:
            yield raw
        finally:
            for wire in (listener, *wires):
                with suppress(OSError):
                    wire.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join(10)


def _talk(talk: Talk, wire: socket.socket, raw: Raw, peek: bool) -> None:
    with wire, suppress(OSError):
        wire.settimeout(5)
        heard = wire.recv(65536, socket.MSG_PEEK if peek else 0)
        raw.heard.append(heard)
        talk(wire, heard)
        wire.shutdown(socket.SHUT_WR)
        while wire.recv(65536):  # to hang up on what is unread would take back what was said
            pass


def saying(content: bytes) -> Talk:
    return lambda wire, _: wire.sendall(content)


def repeating(beginning: bytes, piece: bytes, pause_seconds: float = 0.0) -> Talk:
    """The beginning, then the piece again and again, for as long as anybody listens."""

    def talk(wire: socket.socket, _: bytes) -> None:
        wire.sendall(beginning)
        never = threading.Event()
        while not never.wait(pause_seconds):
            wire.sendall(piece)

    return talk


def reading_slowly(wire: socket.socket, _: bytes) -> None:
    never = threading.Event()
    while wire.recv(4096):
        never.wait(0.02)
