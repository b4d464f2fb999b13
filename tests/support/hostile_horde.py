"""A horde that passes on what the local one says, and has strangers' samples in between.

A real server before a real sandbox: requests go through as they are, and answers come back with
odd texts beside what they say. A job whose prompt begins with the name of a sample is spoilt by it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import requests

Json = dict[str, Any]
Spoil = Callable[[Json], None]
"""Changes the answer to a pop."""

_PASSED_ON = ("apikey", "Content-Type", "Client-Agent")


@dataclass
class HostileHorde:
    """`samples` spoil jobs by name; `answers` are given to the first pops, instead of any job."""

    behind: str  # the address of the horde
    samples: Mapping[str, Spoil]
    answers: list[bytes]
    beside: Json  # what each object that is answered says besides
    url: str = ""
    spoilt: list[str] = field(default_factory=list[str])  # the samples that were handed out

    def answer(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, bytes]:
        is_pop = path.endswith("generate/pop")
        if is_pop and self.answers:
            return 200, self.answers.pop(0)
        reply = requests.request(
            method, f"{self.behind}{path}", headers=headers, data=body, timeout=10
        )
        told: Json | list[Json] = reply.json()
        if reply.ok and isinstance(told, dict):
            told |= self.beside if is_pop or "username" in told else {}
            if is_pop and told["id"]:
                self._spoil(told)
        return reply.status_code, json.dumps(told).encode()

    def _spoil(self, popped: Json) -> None:
        name = str(popped["payload"]["prompt"]).partition(":")[0]
        if name in self.samples:
            self.spoilt.append(name)
            self.samples[name](popped)


@contextmanager
def hostile_horde(
    behind: str, samples: Mapping[str, Spoil], answers: list[bytes], beside: Json
) -> Generator[HostileHorde]:
    horde = HostileHorde(behind, samples, answers, beside)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name: self.headers[name] for name in _PASSED_ON if name in self.headers}
            status, answer = horde.answer(self.command, self.path, headers, body)
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_POST = do_PUT = handle_any

        def handle(self) -> None:
            with suppress(ConnectionError):  # whoever asked has ended
                super().handle()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    horde.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield horde
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
