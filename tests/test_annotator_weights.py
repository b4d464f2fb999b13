"""The annotators' weights, from a real HTTP server."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Generator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from hordelib.control_types import Weights
from hordelib.errors import DownloadFailed
from worker.annotator_weights import all_weights, damaged, fetch_missing
from worker.downloads import Downloader
from worker.web import Web

CONTENT = b"weights" * 1000


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Tests are read, not watched."""


@pytest.fixture
def site(tmp_path: Path) -> Generator[str]:
    served = tmp_path / "served"
    served.mkdir()
    (served / "net.pth").write_bytes(CONTENT)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(served))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def weights(site: str) -> Weights:
    return Weights("net.pth", f"{site}/net.pth", hashlib.sha256(CONTENT).hexdigest())


@pytest.fixture
def downloader() -> Downloader:
    return Downloader(Web("tester", pause_seconds=0.01), pause_seconds=0.01)


def test_what_is_missing_is_fetched_once(tmp_path: Path, weights: Weights, downloader: Downloader):
    told: list[str] = []
    for _ in range(2):
        fetch_missing(tmp_path / "annotators", [weights], downloader, told.append)
    assert (tmp_path / "annotators" / "net.pth").read_bytes() == CONTENT
    assert told == [f"net.pth: downloading from {weights.url}", "net.pth: is there"]
    assert list(damaged(tmp_path / "annotators", [weights])) == []


def test_another_file_than_the_right_one_is_not_kept(
    tmp_path: Path, weights: Weights, downloader: Downloader
):
    wrong = Weights(weights.file, weights.url, "0" * 64)
    with pytest.raises(DownloadFailed, match=r"net\.pth"):
        fetch_missing(tmp_path, [wrong], downloader, lambda _: None)
    assert not (tmp_path / "net.pth").exists()


def test_a_damaged_file_is_found(tmp_path: Path, weights: Weights):
    (tmp_path / "net.pth").write_bytes(CONTENT[:-1])
    assert list(damaged(tmp_path, [weights])) == [weights]


def test_every_control_type_but_canny_and_scribble_has_weights_with_an_address_and_a_hash():
    assert len(all_weights()) == 6
    for weights in all_weights():
        assert weights.url.startswith("https://")
        assert len(bytes.fromhex(weights.sha256)) == 32
