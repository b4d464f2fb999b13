"""A CivitAI on this machine: the pages, files and moods that tests need, over real HTTP."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

STEP_BYTES = 4096


def safetensors(size_bytes: int = 4, fill: bytes = b"\x01") -> bytes:
    """A whole file of one tensor of `size_bytes` bytes."""
    header = {"t": {"dtype": "U8", "shape": [size_bytes], "data_offsets": [0, size_bytes]}}
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + fill * size_bytes


@dataclass
class Version:
    """A version at the site; `content` is what its file really is."""

    id: int
    content: bytes = field(default_factory=safetensors)
    base_model: str = "SD 1.5"
    triggers: tuple[str, ...] = ()
    file_name: str = "file.safetensors"
    sha256: str = ""  # what the site says, "" = the truth
    availability: str = "Public"

    def row(self, site: str, model: Model) -> dict[str, Any]:
        said = self.sha256 or hashlib.sha256(self.content).hexdigest()
        file = {
            "name": self.file_name,
            "type": "Model",
            "primary": True,
            "sizeKB": len(self.content) / 1024,
            "metadata": {
                "format": "SafeTensor" if self.file_name.endswith("safetensors") else "PickleTensor"
            },
            "hashes": {"SHA256": said.upper()},
            "downloadUrl": f"{site}/api/download/models/{self.id}",
        }
        return {
            "id": self.id,
            "modelId": model.id,
            "name": f"v{self.id}",
            "baseModel": self.base_model,
            "availability": self.availability,
            "trainedWords": list(self.triggers),
            "model": {"name": model.name, "type": model.type, "nsfw": model.nsfw},
            "files": [file],
        }


@dataclass
class Model:
    id: int
    name: str
    versions: list[Version]  # newest first
    type: str = "LORA"
    nsfw: bool = False

    def row(self, site: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "name": self.name,
            "type": self.type,
            "nsfw": self.nsfw,
            "modelVersions": [version.row(site, self) for version in self.versions],
        }


@dataclass
class CivitaiServer:
    """`statuses` answers a path otherwise than well; the other fields spoil downloads."""

    url: str = ""
    models: list[Model] = field(default_factory=list[Model])
    asked: list[tuple[str, dict[str, str]]] = field(
        default_factory=list[tuple[str, dict[str, str]]]
    )
    pages: dict[str, str] = field(default_factory=dict[str, str])  # besides those of the models
    statuses: dict[str, int] = field(default_factory=dict[str, int])
    broken_downloads: int = 0  # that end after the first step
    only_one_step: bool = False  # the rest never comes, while `held` is not set
    dripping: threading.Event = field(default_factory=threading.Event)  # set by the first one
    held: threading.Event = field(default_factory=threading.Event)
    ignores_ranges: bool = False
    redirect: str = ""  # downloads are at this site instead

    def downloads(self) -> list[dict[str, str]]:
        """The headers of each request for a file."""
        return [headers for path, headers in self.asked if path.startswith("/api/download/")]

    def page(self, path: str) -> Any:
        """The JSON of an API path; None where there is none."""
        parts = urlsplit(path)
        if parts.path in self.pages:
            return json.loads(self.pages[parts.path])
        by_id = {f"/api/v1/models/{model.id}": model.row(self.url) for model in self.models}
        by_version = {
            f"/api/v1/model-versions/{version.id}": version.row(self.url, model)
            for model in self.models
            for version in model.versions
        }
        if parts.path == "/api/v1/models":
            return {"items": self._search(parse_qs(parts.query)), "metadata": {}}
        return {**by_id, **by_version}.get(parts.path)

    def content(self, path: str) -> bytes | None:
        """The file of a download path."""
        versions = [version for model in self.models for version in model.versions]
        found = {f"/api/download/models/{version.id}": version.content for version in versions}
        return found.get(urlsplit(path).path)

    def _search(self, query: dict[str, list[str]]) -> list[dict[str, Any]]:
        """Full-text search: any word of the query in the name."""
        words = query["query"][0].casefold().split()
        return [
            model.row(self.url)
            for model in self.models
            if model.type in query["types"] and any(word in model.name.casefold() for word in words)
        ]


@contextmanager
def civitai_server(*models: Model) -> Generator[CivitaiServer]:
    """Serves on a free port of this machine until the block ends."""
    site = CivitaiServer(models=list(models))

    class Handler(_Handler):
        server_site = site

    try:
        with on_loopback(Handler) as site.url:
            yield site
    finally:
        site.held.set()


@contextmanager
def on_loopback(handler: type[BaseHTTPRequestHandler]) -> Generator[str]:
    """Serves on a free port of this machine until the block ends; yields the address."""
    http = _Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_address[1]}"
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64  # more wait a second for their connection

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up at its deadline is what tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_site: CivitaiServer

    def do_GET(self) -> None:
        site = self.server_site
        site.asked.append((self.path, dict(self.headers)))
        status = site.statuses.get(urlsplit(self.path).path)
        content, page = site.content(self.path), site.page(self.path)
        if status is not None:
            self._say(status, b"{}")
        elif content is not None and site.redirect:
            self._say(307, b"", Location=site.redirect + self.path + "?signature=secret")
        elif content is not None:
            self._file(content)
        elif page is not None:
            self._say(200, json.dumps(page).encode())
        else:
            self._say(404, b'{"error": "not found"}')

    def _file(self, content: bytes) -> None:
        site = self.server_site
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(wanted[1]) if wanted and not site.ignores_ranges else 0
        if start >= len(content):
            self._say(416, b"")
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        rest = memoryview(content)[start:]
        self.wfile.write(rest[:STEP_BYTES])
        if site.broken_downloads:
            site.broken_downloads -= 1
            self.close_connection = True
            return
        if site.only_one_step:
            self._drip()
            return
        self.wfile.write(rest[STEP_BYTES:])

    def _drip(self) -> None:
        """A byte now and then, until the test is over."""
        self.close_connection = True
        self.server_site.dripping.set()
        try:
            while not self.server_site.held.wait(0.02):
                self.wfile.write(b"\x01")
        except OSError:
            return

    def _say(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on the terminal."""
