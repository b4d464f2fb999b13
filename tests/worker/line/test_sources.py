"""Fetching what a job starts from, from real servers that are not always kind."""

from __future__ import annotations

import gzip
import io
import json
import socket
import threading
import time
import tracemalloc
from base64 import b64encode
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from math import nan
from pathlib import Path
from typing import cast

import pytest
from PIL import Image

from hordelib.errors import BadSource, DownloadFailed
from hordelib.job.image_files import MAX_BYTES
from hordelib.job.images import SourceImage
from hordelib.job.notes import MetadataType, MetadataValue
from tests.support import name_servers
from tests.support.sandbox_client import CLIENT_KEY, MODEL, MODELS, WORKER_KEY, Api
from worker.horde.api import ExtraSource, FullPop, Job
from worker.line.source_fetcher import SourceFetcher, TryLater, fetch_sources
from worker.sandbox import Endpoint, Reply, Sandbox

AGENT = "AI Horde Worker:24.1.0:https://example.org"
HERE, PRIVATE, PUBLIC = "http://127.0.0.1:1", "http://10.0.0.1", "http://93.184.216.34"
CONTENT = b"the bytes of a picture"

Handler = BaseHTTPRequestHandler
Answering = Callable[[Handler], None]


@dataclass
class Files:
    """A server that gives its n-th request the n-th answer, and all after that the last."""

    answers: tuple[Answering, ...]
    url: str = ""
    seen: list[dict[str, str]] = field(default_factory=list[dict[str, str]])

    def answer(self, handler: Handler) -> None:
        self.seen.append({"path": handler.path, **handler.headers})
        with suppress(ConnectionError):
            self.answers[min(len(self.seen), len(self.answers)) - 1](handler)


@contextmanager
def serving(*answers: Answering) -> Generator[Files]:
    files = Files(answers)

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            files.answer(self)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing on the terminal."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    files.url = f"http://127.0.0.1:{http.server_address[1]}/a/picture.webp?X-Amz-Signature=secret"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield files
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


def giving(content: bytes = CONTENT, status: int = 200, **headers: str) -> Answering:
    def answer(handler: Handler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    return answer


def leading_to(url: str, status: int = 302) -> Answering:
    return giving(b"", status, Location=url)


def cut_short(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(CONTENT)


def drip(handler: Handler, beginning: bytes) -> None:
    """A byte now and then, for as long as anybody listens."""
    handler.wfile.write(beginning)
    never = threading.Event()
    with suppress(OSError):
        while not never.wait(0.05):
            handler.wfile.write(b"x")


def dripping_headers(handler: Handler) -> None:
    drip(handler, b"HTTP/1.1 200 OK\r\nX-Slow: ")


def dripping_body(handler: Handler) -> None:
    drip(handler, b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")


def dripping_without_length(handler: Handler) -> None:
    drip(handler, b"HTTP/1.0 200 OK\r\n\r\n")


def endless(handler: Handler) -> None:
    handler.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n")
    with suppress(OSError):
        while True:
            handler.wfile.write(bytes(1 << 20))


def fetcher(horde_url: str = HERE, *, seconds: float = 10, try_seconds: float = 5) -> SourceFetcher:
    return SourceFetcher(horde_url, client_agent=AGENT, seconds=seconds, try_seconds=try_seconds)


def impatient(horde_url: str = HERE) -> SourceFetcher:
    return fetcher(horde_url, seconds=0.6, try_seconds=0.3)


def test_a_file_is_fetched_as_it_is():
    packed = gzip.compress(CONTENT)
    with serving(giving(packed, Content_Encoding="gzip")) as files:
        assert fetcher().fetch(files.url) == packed
    assert files.seen[0]["path"] == "/a/picture.webp?X-Amz-Signature=secret"
    assert files.seen[0]["Host"] in files.url


def test_nothing_of_the_owner_goes_along(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login owner password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with serving(giving(Set_Cookie="a=b")) as files:
        one = fetcher()
        assert [one.fetch(files.url) for _ in range(2)] == [CONTENT, CONTENT]
    for headers in files.seen:
        assert set(headers) == {"path", "Host", "User-Agent", "Accept-Encoding"}


def test_base64_is_read_in_place():
    assert fetcher().fetch(b64encode(CONTENT).decode()) == CONTENT


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ("file:///etc/passwd", "the scheme 'file'"),
        ("ftp://example.org/a", "the scheme 'ftp'"),
        ("gopher://example.org/a", "the scheme 'gopher'"),
        ("FILE://localhost/etc/passwd", "the scheme"),
        ("http://owner:secret@example.org/", "with a password in it"),
        ("http://", "not an address|without a host"),
        ("http://[::1", "not an address"),
        ("http://a:99999999/", "not an address"),
        ("data:image/webp;base64,AAAA", "neither an http"),
        ("/etc/passwd.webp", "neither an http"),
        ("not base64!", "neither an http"),
        ("ä", "neither an http"),
        ("A" * (2 * MAX_BYTES), "letters of base64"),
    ],
)
def test_other_references_are_refused(reference: str, reason: str):
    with pytest.raises(BadSource, match=f"^source_mask: .*({reason})") as caught:
        fetcher().fetch(reference, "source_mask")
    assert "secret" not in str(caught.value)


# ---- where it may lead -----------------------------------------------------------------------


@pytest.mark.parametrize("horde", [PUBLIC, PRIVATE])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "[::ffff:127.0.0.1]"])
def test_a_horde_elsewhere_leads_nobody_to_this_machine(horde: str, host: str):
    with (
        serving(giving()) as files,
        pytest.raises(BadSource, match=r"a loopback.* address, where this horde has no"),
    ):
        fetcher(horde).fetch(files.url.replace("127.0.0.1", host))
    assert files.seen == []


@pytest.mark.parametrize(
    ("horde", "host", "near"),
    [
        (PUBLIC, "192.168.1.1", "private"),
        (PUBLIC, "[fd00::1]", "private"),
        (PUBLIC, "169.254.169.254", "link_local"),
        (HERE, "169.254.169.254", "link_local"),
        (HERE, "0.0.0.0", "nobody"),
    ],
)
def test_no_horde_leads_to_the_neighbours_secrets(horde: str, host: str, near: str):
    with pytest.raises(BadSource, match=f"a {near} address"):
        fetcher(horde).fetch(f"http://{host}/latest/meta-data")


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("http://169.254.169.254/latest/meta-data", "a link_local address"),
        ("file:///etc/passwd", "the scheme 'file'"),
        ("http://owner:secret@127.0.0.1/", "with a password"),
    ],
)
def test_each_redirect_is_checked_like_the_first_address(location: str, reason: str):
    with serving(leading_to(location)) as files, pytest.raises(BadSource, match=reason):
        fetcher().fetch(files.url)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_followed(status: int):
    with serving(leading_to("/elsewhere", status), giving()) as files:
        assert fetcher().fetch(files.url) == CONTENT
    assert [seen["path"] for seen in files.seen][1] == "/elsewhere"


def test_redirects_come_to_an_end():
    with (
        serving(leading_to("/again")) as files,
        pytest.raises(BadSource, match="more than 3 redirects"),
    ):
        fetcher().fetch(files.url)
    assert len(files.seen) == 4


def test_a_name_that_moves_between_check_and_connection_leads_nowhere(tmp_path: Path):
    told = "moving.test: a loopback address, where this horde has no business"
    assert name_servers.run(tmp_path, "moving") == f"source_image: {told} []\n"


# ---- how long and how much -------------------------------------------------------------------


@pytest.mark.parametrize("answer", [dripping_headers, dripping_body, dripping_without_length])
def test_a_drip_ends_at_the_time_limit(answer: Answering):
    began = time.monotonic()
    with serving(answer) as files, pytest.raises(TryLater, match="too slow"):
        impatient().fetch(files.url)
    assert time.monotonic() - began < 3


def test_silence_ends_at_the_time_limit():
    began = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for scheme in ("http", "https"):
            with pytest.raises(TryLater, match=r"source_image: 127\.0\.0\.1: timed out"):
                impatient().fetch(f"{scheme}://127.0.0.1:{silent.getsockname()[1]}/")
    assert time.monotonic() - began < 4


def test_an_endless_body_is_cut_in_bounded_memory():
    tracemalloc.start()
    with serving(endless) as files, pytest.raises(BadSource, match=f"more than {MAX_BYTES} bytes"):
        fetcher().fetch(files.url)
    assert tracemalloc.get_traced_memory()[1] < 4 * MAX_BYTES
    tracemalloc.stop()


@pytest.mark.parametrize(
    "first",
    [cut_short, giving(status=503), giving(status=408), giving(status=429, Retry_After="0")],
)
def test_what_may_pass_is_asked_for_again(first: Answering):
    with serving(first, giving()) as files:
        assert fetcher().fetch(files.url) == CONTENT
    assert len(files.seen) == 2


@pytest.mark.parametrize(
    ("status", "reason"),
    [(403, "the address has expired"), (404, "it is not there"), (418, "HTTP 418"), (304, "304")],
)
def test_a_clear_no_is_taken_for_one(status: int, reason: str):
    with (
        serving(giving(b"", status)) as files,
        pytest.raises(DownloadFailed, match=reason) as caught,
    ):
        fetcher().fetch(files.url)
    assert len(files.seen) == 1
    assert "secret" not in str(caught.value)


def test_a_server_that_stays_broken_is_left_in_time():
    with (
        serving(giving(status=500)) as files,
        pytest.raises(TryLater, match=r"^source_image: 127\.0\.0\.1: HTTP 500$"),
    ):
        impatient().fetch(files.url)
    assert len(files.seen) > 1


def test_a_wait_that_is_too_long_is_not_waited_for():
    began = time.monotonic()
    with (
        serving(giving(status=429, Retry_After="60")) as files,
        pytest.raises(TryLater, match="HTTP 429"),
    ):
        fetcher().fetch(files.url)
    assert time.monotonic() - began < 2


def test_nobody_there_is_told():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(TryLater, match="connection refused"):
        impatient().fetch(f"http://127.0.0.1:{port}/")
    with pytest.raises(TryLater, match="no such host"):
        impatient().fetch("http://no.such.host.invalid/")


def test_threads_share_a_fetcher():
    with serving(giving()) as files, ThreadPoolExecutor(8) as pool:
        one = fetcher()
        assert set(pool.map(one.fetch, [files.url] * 32)) == {CONTENT}


# ---- whole jobs ------------------------------------------------------------------------------


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> str:
    target = io.BytesIO()
    image.save(target, kind, **options)
    return b64encode(target.getvalue()).decode()


def colour(image: SourceImage | None) -> object:
    assert image is not None
    return image.to_pil().getpixel((8, 8))


def job(**sources: object) -> Job:
    plain = Job(
        ids=("one",), model=MODEL, payload={}, ttl_seconds=150, upload_urls=(), popped_at=0.0
    )
    return replace(plain, **sources)  # pyright: ignore[reportArgumentType]


RED, BLUE = Image.new("RGB", (16, 16), "red"), Image.new("RGB", (16, 16), "blue")


def test_a_job_without_pictures_fetches_none():
    sources = fetch_sources(job(), fetcher())
    assert (sources.image, sources.mask, sources.extras, sources.notes) == (None, None, (), ())


@pytest.mark.parametrize("name", ["source_image", "source_mask"])
@pytest.mark.parametrize(
    ("reference", "value"),
    [
        (encoded(RED)[:-40], MetadataValue.PARSE_FAILED),
        ("neither an address nor base64", MetadataValue.PARSE_FAILED),
        ("http://10.1.2.3/picture.png", MetadataValue.PARSE_FAILED),
    ],
)
def test_a_picture_that_can_not_be_had_is_left_out_and_disclosed(
    name: str, reference: str, value: MetadataValue
):
    sources = fetch_sources(job(**{name: reference}), impatient(PUBLIC))
    assert (sources.image, sources.mask) == (None, None)
    (note,) = sources.notes
    assert (note.type.value, note.value) == (name, value)
    assert (note.ref or "").startswith(f"{name}: ")


def test_a_picture_that_is_gone_is_left_out_and_disclosed():
    with serving(giving(b"", 410)) as files:
        sources = fetch_sources(job(source_image=files.url), fetcher())
    assert (sources.image, sources.notes[0].value) == (None, MetadataValue.DOWNLOAD_FAILED)


def test_an_animation_is_disclosed():
    moving = encoded(RED, "WEBP", save_all=True, append_images=[BLUE], lossless=True)
    sources = fetch_sources(job(source_image=moving), fetcher())
    assert colour(sources.image) == (255, 0, 0)
    (note,) = sources.notes
    assert (note.type, note.value) == (MetadataType.SOURCE_IMAGE, MetadataValue.SEE_REF)


def test_an_extra_picture_that_can_not_be_had_is_left_out_and_disclosed():
    extras = (
        ExtraSource(image="http://10.1.2.3/picture.png", strength=1.0),
        ExtraSource(image=encoded(BLUE), strength=0.5),
        ExtraSource(image=encoded(BLUE)[:40], strength=0.5),
        ExtraSource(image=encoded(BLUE), strength=nan),
    )
    remix = job(source_image=encoded(RED), source_processing="remix", extra_sources=extras)
    sources = fetch_sources(remix, impatient(PUBLIC))
    assert [(colour(image), strength) for image, strength in sources.extras] == [((0, 0, 255), 0.5)]
    assert [note.value for note in sources.notes] == [MetadataValue.PARSE_FAILED] * 3
    assert all(note.type is MetadataType.EXTRA_SOURCE_IMAGES for note in sources.notes)


def test_extra_pictures_have_no_effect_but_in_a_remix():
    extras = (ExtraSource(image="http://no.such.host.invalid/"),)
    sources = fetch_sources(job(source_image=encoded(RED), extra_sources=extras), fetcher())
    assert sources.extras == ()
    assert [note.type for note in sources.notes] == [MetadataType.EXTRA_SOURCE_IMAGES]


@pytest.fixture(name="sandbox")
def _sandbox() -> Iterator[Sandbox]:
    with Sandbox(MODELS) as sandbox:
        yield sandbox


@pytest.fixture(name="popped")
def _popped(sandbox: Sandbox) -> Job:
    """A job whose client sent a red picture, and a mask that is white."""
    mask = encoded(Image.new("1", (16, 16), 1))
    with Api(sandbox.url, CLIENT_KEY) as client, Api(sandbox.url, WORKER_KEY) as worker:
        client.ask_id(source_image=encoded(RED), source_mask=mask)
        popped = worker.pop_job()
    return FullPop.model_validate_json(json.dumps(popped)).job(tuple(popped["ids"]), 0.0)


def test_the_pictures_of_a_popped_job_arrive(sandbox: Sandbox, popped: Job):
    assert str(popped.source_image).startswith(f"{sandbox.url}/sources/")
    sources = fetch_sources(popped, fetcher(sandbox.url))
    red, green, blue = cast("tuple[int, int, int]", colour(sources.image))
    assert red > 240 > 16 > max(green, blue)
    assert colour(sources.mask) == 255
    assert sources.notes == ()


def test_the_pictures_of_a_popped_job_arrive_after_trouble(sandbox: Sandbox, popped: Job):
    sandbox.faults.inject(Endpoint.SOURCE, Reply(503), calls=2)
    assert fetch_sources(popped, fetcher(sandbox.url)).mask is not None
