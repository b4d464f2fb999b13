"""An archive of a commit, packed by git itself, and an address that serves it."""

from __future__ import annotations

import http.server
import subprocess
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path


def packed_by_git(folder: Path, files: Mapping[str, str]) -> tuple[bytes, str]:
    """A .tar.gz as GitHub makes them, and the hash of its tree. A `.sh` is a program."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        path.chmod(0o755 if name.endswith(".sh") else 0o644)
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    tree = git(folder, "write-tree").decode().strip()
    return git(folder, "archive", "--format=tar.gz", "--prefix=ComfyUI-1/", tree), tree


def git(folder: Path, *arguments: str) -> bytes:
    return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, check=True).stdout


@contextmanager
def serving(content: bytes, *, cut_bytes: int = 0) -> Generator[str]:
    """An address that gives these bytes, or ends before the last ones of them."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/moved":  # as GitHub's addresses are
                self.send_response(302)
                self.send_header("Location", "/archive")
                self.end_headers()
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) - cut_bytes])

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/moved"
        finally:
            server.shutdown()
            thread.join()
