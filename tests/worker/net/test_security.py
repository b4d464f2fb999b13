"""Where a horde may send its worker, and that nobody but the horde learns the api key."""

from __future__ import annotations

import logging
import re
import socket
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from hordelib.errors import JobError
from tests.support.raw_server import Raw, Talk, raw_server, saying
from worker.clock import elapsed_seconds
from worker.errors import JobFate, UploadRefused, WorkerError
from worker.horde.accounts import Account, WorkerChanges
from worker.horde.api import Offer, Submission
from worker.horde.client import HordeClient
from worker.line.source_fetcher import SourceFetcher
from worker.net.fetch import Web

AGENT = "AI Horde Worker:24.1.0:https://example.org"
OFFER = Offer(name="a worker", models=("M",), bridge_agent=AGENT, max_pixels=1024**2)
HERE, PRIVATE, PUBLIC = "http://127.0.0.1:1", "http://10.0.0.1", "http://93.184.216.34"
KEY = "a-very-secret-key-0123456789"
TAKEN = saying(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


def client_of(url: str) -> HordeClient:
    return HordeClient(url, KEY, timeout=(0.3, 0.3), client_agent=AGENT)


def refused_upload(horde: str, url: str) -> UploadRefused:
    with client_of(horde) as client, pytest.raises(UploadRefused) as caught:
        client.upload(url, b"a picture")
    assert caught.value.fate is JobFate.OPEN
    assert "password" not in str(caught.value).replace("without a password", "")
    return caught.value


# ---- where a picture may go -------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "FILE://localhost/etc/passwd",
        "ftp://127.0.0.1/a.webp",
        "gopher://127.0.0.1/a.webp",
        "http://owner:password@127.0.0.1/a.webp",
        "http://",
        "http://[::1",
        "http://a:99999999/",
        "/etc/passwd",
        "a.webp",
        "",
    ],
)
def test_a_picture_goes_to_a_plain_http_address_or_nowhere(url: str):
    refused_upload(HERE, url)


@pytest.mark.parametrize("horde", [PUBLIC, PRIVATE])
@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]"]
)
def test_a_horde_elsewhere_has_no_picture_put_on_this_machine(horde: str, host: str):
    with raw_server(TAKEN) as here:
        error = refused_upload(horde, f"http://{host}:{here.port}/a.webp")
    assert "loopback" in str(error)
    assert here.heard == []


@pytest.mark.parametrize(
    ("horde", "host", "near"),
    [
        (PUBLIC, "192.168.1.1", "private"),
        (PUBLIC, "100.64.0.1", "private"),
        (PUBLIC, "[fd00::1]", "private"),
        (PUBLIC, "[64:ff9b::c0a8:101]", "private"),
        (PUBLIC, "169.254.169.254", "link_local"),
        (PRIVATE, "169.254.169.254", "link_local"),
        (HERE, "169.254.169.254", "link_local"),
        (HERE, "[fe80::1]", "link_local"),
        (HERE, "0.0.0.0", "nobody"),
        (HERE, "224.0.0.1", "nobody"),
    ],
)
def test_no_horde_has_a_picture_put_where_it_has_no_business(horde: str, host: str, near: str):
    assert f"a {near} address" in str(refused_upload(horde, f"http://{host}/latest/meta-data"))


def test_a_horde_on_this_machine_may_keep_its_pictures_here():
    with raw_server(TAKEN) as here, client_of(HERE) as client:
        client.upload(f"{here.url}/a.webp", b"a picture")
    assert here.heard[0].startswith(b"PUT /a.webp ")


def test_behind_a_proxy_an_address_is_judged_and_a_name_is_the_proxys(
    monkeypatch: pytest.MonkeyPatch,
):
    with raw_server(TAKEN) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        refused_upload(PUBLIC, "http://169.254.169.254/a.webp")
        refused_upload(PUBLIC, "http://2130706433/a.webp")
        assert proxy.heard == []
        with client_of(PUBLIC) as client:
            client.upload("http://storage.invalid/a.webp", b"a picture")
    assert proxy.heard[0].startswith(b"PUT http://storage.invalid/a.webp ")


def test_no_cookie_and_no_netrc_goes_along(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login owner password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    setting = saying(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\n\r\n{}")
    with raw_server(setting) as horde, client_of(horde.url) as client:
        client.heartbeat()
        client.upload(f"{horde.url}/a.webp", b"a picture")
    heard = b"".join(horde.heard).lower()
    assert b"put /a.webp" in heard
    assert b"cookie:" not in heard
    assert b"authorization:" not in heard


# ---- the api key ------------------------------------------------------------------------------


def echo(answer: bytes) -> Talk:
    """A server that writes the key into its answer, where it has %s."""

    def talk(wire: socket.socket, heard: bytes) -> None:
        told = re.search(rb"apikey: (\S+)", heard)
        assert told is not None
        wire.sendall(answer.replace(b"%s", told[1]))

    return talk


ECHOES = [
    b"HTTP/1.1 200 OK\r\n\r\n<html>%s</html>",
    b'HTTP/1.1 200 OK\r\n\r\n{"%s": 1}',
    b'HTTP/1.1 404 Not Found\r\n\r\n{"message": "no user %s", "rc": "UserNotFound"}',
    b'HTTP/1.1 403 Forbidden\r\n\r\n{"message": "no", "rc": "%s"}',
    b'HTTP/1.1 400 Bad Request\r\n\r\n{"message": "no", "errors": {"%s": "%s"}}',
    b"HTTP/1.1 403 Forbidden\r\n\r\n<html>%s</html>",
    b"HTTP/1.1 500 %s\r\n\r\n%s",
    b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: %s\r\n\r\n",
    b"HTTP/1.1 302 Found\r\nLocation: http://elsewhere.example/%s\r\n\r\n",
    b"HTTP/1.1 302 Found\r\nLocation: http://[%s\r\n\r\n",
    b"%s\r\n\r\n",
    b"HTTP/1.1 %s OK\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n%s\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nContent-Length: %s\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%s\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n%s",
    b"HTTP/1.1 200 OK\r\nSet-Cookie: a=%s\r\n\r\n%s",
]
NOBODY = Account(username="nobody#7", id=7, kudos=0.0)
KEYED: list[Callable[[HordeClient], object]] = [
    lambda it: it.pop(OFFER),
    lambda it: it.submit(Submission.ok("an id", 7)),
    lambda it: it.whoami(),
    lambda it: it.worker_by_name("a name", NOBODY),
    lambda it: it.change_worker("an id", WorkerChanges(info="mine")),
]


def told_by(call: Callable[[], object]) -> str:
    """All that a call can bring into a log, a view or a report."""
    try:
        return repr(call())
    except (WorkerError, JobError) as error:
        logging.getLogger("a reader").warning("%s", error, exc_info=error)
        return f"{error} {error!r} {''.join(traceback.format_exception(error))} {vars(error)}"


def all_to_the_horde() -> str:
    told: list[str] = []
    for answer in ECHOES:
        with raw_server(echo(answer)) as horde:
            for call in KEYED:
                with client_of(horde.url) as client:
                    told += [repr(client), told_by(lambda call=call, it=client: call(it))]
            assert all(f"apikey: {KEY}".encode() in heard for heard in horde.heard)
    return "".join(told)


def all_to_others(other: Raw) -> str:
    """Whatever leads elsewhere: an upload, a source, a download, a redirect."""
    moved = saying(f"HTTP/1.1 307 Moved\r\nLocation: {other.url}/moved\r\n\r\n".encode())
    fetcher = SourceFetcher(HERE, client_agent=AGENT, seconds=0.6, try_seconds=0.6)
    web = Web(AGENT, pause_seconds=0.01)
    told: list[str] = []
    with raw_server(moved) as horde, client_of(horde.url) as client:
        told += [told_by(lambda call=call: call(client)) for call in KEYED]
        for url in (f"{horde.url}/a", f"{other.url}/a"):
            told += [
                told_by(lambda url=url: client.upload(url, b"a picture")),
                told_by(lambda url=url: fetcher.fetch(url)),
                told_by(lambda url=url: web.read(url, elapsed_seconds() + 1, 1000)),
            ]
    return "".join(told) + repr(fetcher) + repr(web)


def test_the_api_key_goes_to_the_horde_and_into_nothing_else(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    told = all_to_the_horde()
    with raw_server(saying(b"HTTP/1.1 200 OK\r\n\r\nhello")) as other:
        told += all_to_others(other)
    assert len(other.heard) >= 5
    assert KEY not in told
    assert KEY.encode() not in b"".join(other.heard)
    assert KEY not in caplog.text
    assert "a reader" in caplog.text
