"""The model reference, the horde's statistics and the hosts of files on this machine: real HTTP."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import urlsplit

from tests.support.civitai_server import on_loopback, safetensors

STEP_BYTES = 65536  # more than a file keeps in memory before it is written
Json = dict[str, Any]


@dataclass
class ReferenceServer:
    """`pages` are JSON by path, `files` are contents by path; `statuses` answers otherwise."""

    url: str = ""
    pages: dict[str, Any] = field(default_factory=dict[str, Any])
    files: dict[str, bytes] = field(default_factory=dict[str, bytes])
    statuses: dict[str, int] = field(default_factory=dict[str, int])
    asked: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])
    held: dict[str, threading.Event] = field(default_factory=dict[str, threading.Event])
    keys: dict[str, str] = field(default_factory=dict[str, str])  # the last caller's, by path
    cut_downloads: int = 0  # that end after the first step

    def answers(self, path: str) -> list[int]:
        """The statuses of every answer to this path."""
        return [status for asked, status in self.asked if asked == path]

    def hold(self, path: str) -> threading.Event:
        """The file's rest comes only after the event."""
        return self.held.setdefault(path, threading.Event())

    def offer_model(self, name: str, content: bytes | None = None, **about: Any) -> bytes:
        """A row of the old format's list, and its file; its content."""
        content = safetensors(150_000, name.encode()[:1]) if content is None else content
        file = about.pop("file", f"{name.replace(' ', '_')}.safetensors")
        sha256 = about.pop("sha256", hashlib.sha256(content).hexdigest())
        row = old_row(name, file, f"{self.url}/files/{file}", sha256, **about)
        row["size_on_disk_bytes"] = about.get("size_on_disk_bytes", len(content))
        self.pages.setdefault("/reference/stable_diffusion.json", {})[name] = row
        self.files[f"/files/{file}"] = content
        return content


def old_row(name: str, file: str, url: str, sha256: str, **about: Any) -> Json:
    row: Json = {
        "name": name,
        "baseline": "stable diffusion 1",
        "type": "ckpt",
        "inpainting": False,
        "style": "generalist",
        "nsfw": False,
        "config": {
            "files": [{"path": file, "sha256sum": sha256}, {"path": "v1-inference.yaml"}],
            "download": [{"file_name": file, "file_path": "", "file_url": url}],
        },
    }
    return row | about


def new_row(name: str, *downloads: Mapping[str, object], **about: Any) -> Json:
    row: Json = {
        "record_type": "image_generation",
        "name": name,
        "baseline": "stable_diffusion_xl",
        "nsfw": True,
        "style": "anime",
        "inpainting": False,
        "config": {"download": [dict(download) for download in downloads]},
    }
    return row | about


@contextmanager
def reference_server() -> Generator[ReferenceServer]:
    """Serves on a free port of this machine until the block ends."""
    site = ReferenceServer()

    class Handler(_Handler):
        server_site = site

    try:
        with on_loopback(Handler) as site.url:
            yield site
    finally:
        for event in site.held.values():
            event.set()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_site: ReferenceServer

    def do_GET(self) -> None:
        site, path = self.server_site, urlsplit(self.path).path
        site.keys[path] = self.headers.get("apikey", "")
        if path in site.statuses:
            self._say(site.statuses[path], b"not today")
        elif path in site.files:
            self._file(path, site.files[path])
        elif path in site.pages:
            self._page(site.pages[path])
        else:
            self._say(404, b"{}")

    def _page(self, page: Any) -> None:
        body = page if isinstance(page, bytes) else json.dumps(page).encode()
        etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
        if self.headers.get("If-None-Match") == etag:
            self._say(304, b"", ETag=etag)
        else:
            self._say(200, body, ETag=etag)

    def _file(self, path: str, content: bytes) -> None:
        site = self.server_site
        start = int(self.headers.get("Range", "bytes=0-")[6:-1])
        site.asked.append((path, 206 if start else 200))
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start : start + STEP_BYTES])
        if site.cut_downloads:
            site.cut_downloads -= 1
            self.close_connection = True
            return
        if path in site.held:
            site.held[path].wait(300)  # until the site closes, if nobody sets it
        self.wfile.write(content[start + STEP_BYTES :])

    def _say(self, status: int, body: bytes, **headers: str) -> None:
        self.server_site.asked.append((urlsplit(self.path).path, status))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status != 304:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on the terminal."""
