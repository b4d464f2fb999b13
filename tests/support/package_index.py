"""A package index on loopback, the only one that pip knows."""

from __future__ import annotations

import functools
import http.server
import os
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest


class QuietIndex(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def package_index(above: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> Generator[Path]:
    """Gives the folder for wheels of the package `name`, below a folder of the index in `above`."""
    folder = above / "index" / name
    folder.mkdir(parents=True)
    serve = functools.partial(QuietIndex, directory=folder.parent)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
        monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/")
        monkeypatch.setenv("PIP_RETRIES", "0")
        try:
            yield folder
        finally:
            server.shutdown()
            thread.join()
