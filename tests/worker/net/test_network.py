"""The network may do anything: each call ends in time, and says whether it may have worked."""

from __future__ import annotations

import ast
import gzip
import json
import math
import os
import signal
import socket
import ssl
import threading
import time
import tracemalloc
from base64 import b64encode
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import worker
from hordelib.errors import DownloadFailed, JobError
from tests.support import name_servers
from tests.support.raw_server import Talk, raw_server, reading_slowly, repeating, saying
from worker.backoff import MOST_SECONDS, Backoff, retry_after_seconds
from worker.clock import elapsed_seconds
from worker.errors import HordeRefused, HordeUnreachable, JobFate
from worker.horde.api import Job, Offer, Submission
from worker.horde.client import HordeClient
from worker.line.source_fetcher import SourceFetcher
from worker.net.addresses import addresses, as_asked
from worker.net.call import Http
from worker.net.fetch import Web
from worker.net.messages import HttpFailed, HttpRequest, NotTrusted
from worker.sandbox import (
    CutShort,
    Disconnect,
    Drip,
    Endpoint,
    HalfHeader,
    Html,
    Latency,
    LostReply,
    Part,
    Redirect,
    ReferenceModel,
    Reply,
    Sandbox,
)
from worker.sandbox.faults import Effect

AGENT = "AI Horde Worker:24.1.0:https://example.org"
MODEL = "Dreamer Demo"
KEY = "sandbox-worker-key-000"
OFFER = Offer(name="a worker", models=(MODEL,), bridge_agent=AGENT, max_pixels=1024**2)
SUBMISSION = Submission.ok("00000000-0000-0000-0000-000000000000", 7)
PICTURE, LARGE_PICTURE = bytes(40_000), bytes(4 << 20)
OK = b"HTTP/1.1 200 OK\r\n"
SELF_SIGNED = Path(__file__).with_name("self_signed.pem")
MOST_SECONDS_OF_A_CALL = 20.0  # the clients below take 0.6; without limits it were for ever

Call = Callable[[HordeClient, str], object]


def pop(client: HordeClient, _: str) -> object:
    return client.pop(OFFER)


def submit(client: HordeClient, _: str) -> object:
    return client.submit(SUBMISSION)


def upload(client: HordeClient, url: str) -> object:
    return client.upload(f"{url}?X-Amz-Signature=secret" if "?" not in url else url, PICTURE)


def upload_large(client: HordeClient, url: str) -> object:
    return client.upload(url, LARGE_PICTURE)


CALLS: dict[Endpoint, Call] = {
    Endpoint.POP: pop,
    Endpoint.SUBMIT: submit,
    Endpoint.UPLOAD: upload,
}


def client_of(url: str, seconds: float = 0.3) -> HordeClient:
    return HordeClient(
        url, KEY, timeout=(seconds, seconds), upload_bytes_per_second=1e9, client_agent=AGENT
    )


def trouble_at(
    url: str, call: Call, seconds: float = 0.3, upload_url: str = ""
) -> HordeUnreachable:
    """What the call raises, after a time that is bounded."""
    began = time.monotonic()
    with client_of(url, seconds) as client, pytest.raises(HordeUnreachable) as caught:
        call(client, upload_url or url)
    assert time.monotonic() - began < MOST_SECONDS_OF_A_CALL
    assert "secret" not in str(caught.value)
    return caught.value


# ---- nothing reaches the horde ----------------------------------------------------------------


@pytest.fixture(name="closed_port")
def _closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_nobody_listening_has_surely_done_nothing(closed_port: int, call: Call):
    error = trouble_at(f"http://127.0.0.1:{closed_port}", call)
    assert "connection refused" in str(error)
    assert not error.may_have_worked


def test_a_name_that_nobody_has_is_told():
    error = trouble_at("http://no.such.host.invalid", pop, 5)
    assert "no such host" in str(error)
    assert not error.may_have_worked


def test_a_resolver_that_never_answers_is_not_waited_for(monkeypatch: pytest.MonkeyPatch):
    over = threading.Event()

    def hang(*_: object, flags: int, **__: object) -> list[object]:
        if flags & socket.AI_NUMERICHOST:  # for which nobody is asked
            raise socket.gaierror
        over.wait(30)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    with pytest.raises(TimeoutError):
        addresses("example.org", 80, 0.1)
    over.set()


def test_neither_a_call_nor_its_end_waits_for_a_resolver_that_never_answers(tmp_path: Path):
    began, _, told = name_servers.run(tmp_path, "deaf").partition("\n")
    assert told == "timed out (GET status/heartbeat) False\n"
    assert time.monotonic() - float(began) < 8  # the resolver itself takes ten seconds


@contextmanager
def self_signed_server() -> Generator[int]:
    """A port where TLS is spoken with a certificate that nobody trusts."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(SELF_SIGNED)

    def talk(wire: socket.socket, _: bytes) -> None:
        with context.wrap_socket(wire, server_side=True, do_handshake_on_connect=False) as tls:
            tls.do_handshake()

    with raw_server(talk, peek=True) as raw:
        yield raw.port


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_certificate_that_nobody_trusts_is_not_spoken_to(call: Call):
    with self_signed_server() as port:
        error = trouble_at(f"https://127.0.0.1:{port}", call)
    assert "no valid certificate" in str(error)
    assert not error.may_have_worked


@pytest.mark.parametrize(
    ("talk", "part"),
    [
        (saying(OK + b"Content-Length: 0\r\n\r\n"), "TLS could not be agreed on"),
        (repeating(b"\x16\x03\x03\x40\x00", b"\x00", 0.02), "timed out|too slow"),
        (saying(b""), "TLS could not be agreed on|the connection was cut"),
    ],
    ids=["plain HTTP", "a drip", "nothing"],
)
def test_without_tls_nothing_is_said(talk: Talk, part: str):
    with raw_server(talk) as raw:
        error = trouble_at(f"https://127.0.0.1:{raw.port}", pop)
    assert any(told in str(error) for told in part.split("|"))
    assert not error.may_have_worked
    assert KEY.encode() not in b"".join(raw.heard)


# ---- the horde does strange things ------------------------------------------------------------


@pytest.fixture(name="horde", scope="module")
def _horde() -> Iterator[Sandbox]:
    with Sandbox(models={MODEL: ReferenceModel(baseline="stable diffusion 1")}) as sandbox:
        yield sandbox


@pytest.fixture(name="sandbox")
def _sandbox(horde: Sandbox) -> Sandbox:
    horde.faults.clear()
    return horde


def upload_url(sandbox: Sandbox) -> str:
    return sandbox.url + sandbox.horde.store.presign("PUT", "transient", "a.webp")


SURELY_NOT, PERHAPS = False, True
OF_ALL_CALLS: list[tuple[Effect, str, bool]] = [
    (LostReply(), "", PERHAPS),
    (HalfHeader(), "headers that can't be read", PERHAPS),
    (Latency(5), "timed out", PERHAPS),
    (Drip(Part.HEADERS), "too slow", PERHAPS),
    (Drip(Part.BODY), "too slow", PERHAPS),
    (Reply(500, message="Internal Server Error"), "Internal Server Error", PERHAPS),
    (Html(502), "Bad gateway", PERHAPS),
    (Reply(503, retry_after_seconds=7), "HTTP503", PERHAPS),
    (Reply(429, message="60 per 1 second"), "60 per 1 second", SURELY_NOT),
    (Redirect("http://127.0.0.1:9/"), "to http://127.0.0.1:9/", SURELY_NOT),
]


@pytest.mark.parametrize("endpoint", CALLS)
@pytest.mark.parametrize(("effect", "part", "may_have_worked"), OF_ALL_CALLS, ids=repr)
def test_no_trouble_holds_a_call(
    sandbox: Sandbox, endpoint: Endpoint, effect: Effect, part: str, may_have_worked: bool
):
    sandbox.faults.inject(endpoint, effect)
    error = trouble_at(sandbox.url, CALLS[endpoint], upload_url=upload_url(sandbox))
    assert part in str(error)
    assert error.may_have_worked == may_have_worked


@pytest.mark.parametrize("endpoint", CALLS)
def test_a_horde_that_hangs_up_holds_no_call(sandbox: Sandbox, endpoint: Endpoint):
    sandbox.faults.inject(endpoint, Disconnect())
    trouble_at(sandbox.url, CALLS[endpoint], upload_url=upload_url(sandbox))


@pytest.mark.parametrize("endpoint", [Endpoint.POP, Endpoint.SUBMIT])
@pytest.mark.parametrize("effect", [CutShort(), Html(200)], ids=repr)
def test_an_answer_that_can_not_be_read_may_be_that_of_work_done(
    sandbox: Sandbox, endpoint: Endpoint, effect: Effect
):
    sandbox.faults.inject(endpoint, effect)
    assert trouble_at(sandbox.url, CALLS[endpoint]).may_have_worked


def test_a_page_that_forbids_is_no_work_done(sandbox: Sandbox):
    sandbox.faults.inject(Endpoint.POP, Html(403))
    assert not trouble_at(sandbox.url, pop).may_have_worked


@pytest.mark.parametrize(
    "talk",
    [
        repeating(OK, b"X-More: of the same\r\n"),
        repeating(OK + b"X-Long: ", b"x" * 4096),
        repeating(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        repeating(OK + b"\r\n", b"x" * 65536),
        repeating(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n", 0.02),
        repeating(OK + b"Transfer-Encoding: chunked\r\n\r\n1", b";x", 0.02),
        saying(b"SSH-2.0-OpenSSH_9.6\r\n"),
        saying(b"\x00" * 100),
    ],
    ids=[
        "endless headers",
        "an endless header",
        "endless patience",
        "an endless body",
        "dripping chunks",
        "a dripping chunk",
        "no HTTP",
        "zeros",
    ],
)
@pytest.mark.parametrize("call", [pop, upload])
def test_no_answer_without_an_end_or_a_sense_holds_a_call(talk: Talk, call: Call):
    with raw_server(talk) as raw:
        trouble_at(raw.url, call)


def test_an_upload_that_is_read_slowly_ends_in_time():
    with raw_server(reading_slowly, receive_bytes=4096) as raw:
        error = trouble_at(raw.url, upload_large)
    assert "too slow" in str(error) or "timed out" in str(error)
    assert not error.may_have_worked  # half a picture is none


def test_a_horde_that_takes_an_upload_drop_by_drop_is_left_in_time(sandbox: Sandbox):
    sandbox.faults.inject(Endpoint.UPLOAD, Drip(Part.REQUEST))
    trouble_at(sandbox.url, upload_large, upload_url=upload_url(sandbox))


def answering_in_a_second(wire: socket.socket, heard: bytes) -> None:
    never, missing = threading.Event(), len(LARGE_PICTURE) - len(heard.partition(b"\r\n\r\n")[2])
    while missing > 0:
        missing -= len(wire.recv(65536))
    for piece in (OK + b"Content-Length: 0\r\nX-Slow: ", *[b"x"] * 20, b"\r\n\r\n"):
        wire.sendall(piece)
        never.wait(0.05)


def test_a_large_picture_has_longer_to_go_up():
    with raw_server(answering_in_a_second) as raw:
        assert "too slow" in str(trouble_at(raw.url, upload_large))
        rate = len(LARGE_PICTURE) / 4
        with HordeClient(
            raw.url, KEY, timeout=(0.3, 0.3), upload_bytes_per_second=rate, client_agent=AGENT
        ) as client:
            upload_large(client, raw.url)


def test_a_packed_answer_is_unpacked_only_so_far():
    bomb = gzip.compress(bytes(256 << 20), 1)
    head = OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb)
    with raw_server(saying(head + bomb)) as raw, client_of(raw.url, 10) as client:
        tracemalloc.start()
        with pytest.raises(HordeUnreachable, match="longer than any"):
            client.pop(OFFER)
        peak_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak_bytes < 128 << 20


def test_a_call_after_a_cut_one_is_answered(sandbox: Sandbox):
    with client_of(sandbox.url) as client:
        for part in (Part.HEADERS, Part.BODY):
            sandbox.faults.inject(Endpoint.HEARTBEAT, Drip(part), calls=1)
            with pytest.raises(HordeUnreachable):
                client.heartbeat()
            client.heartbeat()


def test_a_submit_whose_answer_was_lost_counts_once(sandbox: Sandbox):
    with client_of(sandbox.url, 5) as client, closing(Http(AGENT, trust_env=False)) as http:
        body = {"prompt": "a red circle", "models": [MODEL], "r2": True}
        request = HttpRequest(
            method="POST",
            url=f"{sandbox.url}/api/v2/generate/async",
            headers={"apikey": "sandbox-client-key-000", "Content-Type": "application/json"},
            body=json.dumps(body).encode(),
            until=elapsed_seconds() + 5,
            connect_seconds=5,
            silence_seconds=5,
        )
        with http.ask(request) as posted:
            assert posted.status == 202
        job = client.pop(OFFER)
        assert isinstance(job, Job)
        client.upload(job.upload_urls[0], PICTURE)
        sandbox.faults.inject(Endpoint.SUBMIT, LostReply(), calls=1)
        with pytest.raises(HordeUnreachable) as lost:
            client.submit(Submission.ok(job.ids[0], 7))
        with pytest.raises(HordeRefused) as told:
            client.submit(Submission.ok(job.ids[0], 7))
    assert lost.value.may_have_worked
    assert told.value.fate is JobFate.DELIVERED
    (entry,) = [row for row in sandbox.books().generations if row.id == job.ids[0]]
    assert entry.state.value == "ok"


def test_what_a_kept_connection_took_and_did_not_answer_is_not_sent_again():
    def once(wire: socket.socket, heard: bytes) -> None:
        wire.sendall(OK + b"Content-Length: 2\r\n\r\n{}")
        later.append(wire.recv(65536))

    later: list[bytes] = []
    with raw_server(once) as raw, client_of(raw.url, 5) as client:
        client.heartbeat()
        with pytest.raises(HordeUnreachable, match="the connection was cut") as caught:
            client.submit(SUBMISSION)
        assert caught.value.may_have_worked
        assert later[0].startswith(b"POST ")
        assert len(raw.heard) == 1


def test_a_call_may_be_made_while_another_answer_is_read():
    with (
        raw_server(saying(OK + b"Content-Length: 5\r\n\r\nouter")) as outer,
        raw_server(saying(OK + b"Content-Length: 5\r\n\r\ninner")) as inner,
        closing(Http(AGENT, trust_env=False)) as http,
        http.ask(get(outer.url)) as first,
    ):
        assert ask(http, inner.url) == b"inner"
        assert first.read(10) == b"outer"


def get(url: str, seconds: float = 5) -> HttpRequest:
    return HttpRequest(
        url=url,
        headers={},
        until=elapsed_seconds() + seconds,
        connect_seconds=seconds,
        silence_seconds=seconds,
    )


def ask(http: Http, url: str, seconds: float = 5) -> bytes:
    with http.ask(get(url, seconds)) as answer:
        return answer.read(10)


def test_ctrl_c_ends_a_call_that_nobody_answers():
    press = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        closing(Http(AGENT, trust_env=False)) as http,
    ):
        began = time.monotonic()
        press.start()
        with pytest.raises(KeyboardInterrupt):
            ask(http, f"http://127.0.0.1:{silent.getsockname()[1]}", 30)
    assert time.monotonic() - began < MOST_SECONDS_OF_A_CALL


def test_an_answer_that_merely_slows_down_is_not_taken_for_silent():
    def slowing_down(wire: socket.socket, _heard: bytes) -> None:
        wire.sendall(OK + b"\r\n")
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            wire.sendall(bytes(65536))
        for _ in range(4):
            time.sleep(0.2)
            wire.sendall(b"slow")

    with raw_server(slowing_down) as raw, closing(Http(AGENT, trust_env=False)) as http:
        request = replace(get(raw.url, 20), connect_seconds=0.1, silence_seconds=0.6)
        with http.ask(request) as answer:
            assert deque(answer.chunks, maxlen=1).pop() == b"slow"


def test_an_answer_that_is_packed_twice_is_refused_before_it_fills_the_memory():
    packed = gzip.compress(gzip.compress(bytes(1 << 20)))
    head = b"Content-Encoding: gzip, gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    with (
        raw_server(saying(OK + head + packed)) as raw,
        closing(Http(AGENT, trust_env=False)) as http,
        pytest.raises(HttpFailed, match="unpacked"),
    ):
        ask(http, raw.url)


def test_what_follows_on_a_packed_answer_is_not_kept():
    def going_on(wire: socket.socket, _: bytes) -> None:
        wire.sendall(OK + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(b"hello"))
        time.sleep(0.2)
        wire.sendall(b"more")

    with (
        raw_server(going_on) as raw,
        closing(Http(AGENT, trust_env=False)) as http,
        pytest.raises(HttpFailed, match="unpacked"),
    ):
        ask(http, raw.url)


def test_a_field_that_looks_like_a_status_is_none():
    answer = OK.replace(b"200", b"404") + b"HTTP/foo: bar\r\nContent-Length: 0\r\n\r\n"
    with (
        raw_server(saying(answer)) as raw,
        closing(Http(AGENT, trust_env=False)) as http,
        http.ask(get(raw.url)) as found,
    ):
        assert found.status == 404


def test_a_header_with_a_line_of_its_own_is_not_sent():
    with raw_server(saying(OK)) as raw, closing(Http(AGENT, trust_env=False)) as http:
        request = replace(get(raw.url), headers={"If-None-Match": "a\r\nX-Other: b"})
        with pytest.raises(HttpFailed, match="header"), http.ask(request):
            pass
        assert raw.heard == []


def test_an_address_has_one_host_for_all_who_read_it():
    assert urlsplit(as_asked("https://one.example\\@two.example/x")).hostname == "one.example"


# ---- the owner's proxy and certificates -------------------------------------------------------


@contextmanager
def secure_server(answer: bytes) -> Generator[int]:
    """A port where TLS is spoken as localhost, by those that trust SELF_SIGNED."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(SELF_SIGNED)

    def talk(wire: socket.socket, _: bytes) -> None:
        with context.wrap_socket(wire, server_side=True) as tls:
            tls.recv(65536)
            tls.sendall(answer)

    with raw_server(talk, peek=True) as raw:
        yield raw.port


def carry(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(65536):
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)


def join_to(port: int, wire: socket.socket) -> None:
    """What a proxy does once it has agreed; to this port, whoever was asked for."""
    with socket.create_connection(("127.0.0.1", port)) as target:
        back = threading.Thread(target=carry, args=(target, wire))
        back.start()
        carry(wire, target)
        back.join()


def http_proxy_to(port: int) -> Talk:
    def talk(wire: socket.socket, _: bytes) -> None:
        wire.sendall(b"HTTP/1.1 200 Connection established\r\nX-Proxy: it\r\n\r\n")
        join_to(port, wire)

    return talk


def socks_proxy_to(port: int, names: list[bytes]) -> Talk:
    """RFC 1928, without a password; `names` gets what it was asked for."""

    def talk(wire: socket.socket, _: bytes) -> None:
        wire.sendall(b"\x05\x00")
        asked = wire.recv(65536)
        names.append(asked[5 : 5 + asked[4]])
        wire.sendall(b"\x05\x00\x00\x01" + bytes(6))
        join_to(port, wire)

    return talk


@pytest.fixture(name="trusting")
def _trusting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(SELF_SIGNED))


@pytest.fixture(name="proxied")
def _proxied(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


ANSWER = OK + b"Content-Length: 5\r\nX-Site: itself\r\n\r\nhello"


@pytest.mark.usefixtures("trusting")
def test_a_certificate_of_the_owners_is_trusted():
    with secure_server(ANSWER) as port, closing(Http(AGENT, trust_env=True)) as http:
        for _ in range(2):
            assert ask(http, f"https://localhost:{port}/") == b"hello"
        with closing(Http(AGENT, trust_env=False)) as strange, pytest.raises(NotTrusted):
            ask(strange, f"https://localhost:{port}/")


@pytest.mark.usefixtures("trusting", "proxied")
def test_a_site_is_reached_through_a_proxy_with_a_password(monkeypatch: pytest.MonkeyPatch):
    def elsewhere(_: str) -> bool:
        return False

    monkeypatch.setattr("worker.net.routes.is_this_machine", elsewhere)
    with secure_server(ANSWER) as port, raw_server(http_proxy_to(port)) as proxy:
        monkeypatch.setenv("https_proxy", f"http://owner:s%40cret@127.0.0.1:{proxy.port}")
        with (
            closing(Http(AGENT, trust_env=True)) as http,
            http.ask(get("https://localhost/")) as site,
        ):
            assert site.headers["x-site"] == "itself"
            assert "X-Proxy" not in site.headers
            assert site.read(10) == b"hello"
    asked = proxy.heard[0]
    assert asked.startswith(b"CONNECT localhost:443 ")
    assert b"Basic " + b64encode(b"owner:s@cret") in asked
    assert b"Accept-Encoding" not in asked  # only the site is told what we want


@pytest.mark.usefixtures("trusting", "proxied")
def test_a_proxy_over_tls_is_known_by_the_owners_certificates(monkeypatch: pytest.MonkeyPatch):
    with secure_server(ANSWER) as proxy, closing(Http(AGENT, trust_env=True)) as http:
        monkeypatch.setenv("http_proxy", f"https://localhost:{proxy}")
        assert ask(http, "http://site.example/") == b"hello"


@pytest.mark.usefixtures("proxied")
def test_a_name_of_this_machine_in_disguise_goes_to_the_proxy(monkeypatch: pytest.MonkeyPatch):
    with raw_server(saying(ANSWER)) as here, raw_server(saying(ANSWER)) as proxy:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("no_proxy", "localhost,127.0.0.1")
        with client_of("http://8.8.8.8", 5) as client:
            client.upload(f"http://localhost.:{here.port}/a.webp", b"a picture")
        assert here.heard == []
        assert len(proxy.heard) == 1


@pytest.mark.usefixtures("proxied")
def test_no_message_has_the_proxys_password(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ALL_PROXY", "ftp://owner:hunter2@proxy.example")
    with closing(Http(AGENT, trust_env=True)) as http, pytest.raises(HttpFailed) as caught:
        ask(http, "http://site.example/")
    assert "hunter2" not in str(caught.value)


@pytest.mark.usefixtures("proxied")
def test_a_socks_proxy_is_used_and_resolves_names_itself(monkeypatch: pytest.MonkeyPatch):
    names: list[bytes] = []
    with (
        raw_server(saying(ANSWER)) as site,
        raw_server(socks_proxy_to(site.port, names)) as proxy,
        closing(Http(AGENT, trust_env=True)) as http,
    ):
        monkeypatch.setenv("ALL_PROXY", f"socks5h://127.0.0.1:{proxy.port}")
        assert ask(http, "http://nobody.example.test/a") == b"hello"
    assert names == [b"nobody.example.test"]
    assert site.heard[0].startswith(b"GET /a HTTP/1.1")


# ---- waits ------------------------------------------------------------------------------------


DATE = "Sun, 22 Nov 2026 11:37:49 GMT"


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "0"}, 0.0),
        ({"Retry-After": "9" * 5000}, float("inf")),
        ({"Retry-After": "Sun, 22 Nov 2026 11:38:49 GMT", "Date": DATE}, 60.0),
        ({"Retry-After": "Sun, 22 Nov 2020 11:38:49 GMT", "Date": DATE}, 0.0),
        ({"Retry-After": "Sun, 22 Nov 99999 11:38:49 GMT", "Date": DATE}, None),
        ({"Retry-After": DATE}, None),  # without the server's own clock nobody can tell
        ({"Retry-After": "-7"}, None),
        ({"Retry-After": "1e9"}, None),
        ({"Retry-After": "soon", "Date": DATE}, None),
        ({}, None),
    ],
)
def test_the_wait_that_a_server_asks_for(asked: dict[str, str], seconds: float | None):
    assert retry_after_seconds(asked) == seconds


@pytest.mark.parametrize("at_least", [None, 0.0, 5.0, float("inf")])
def test_waits_grow_and_stay_below_a_cap(at_least: float | None):
    backoff = Backoff(1, 60)
    delays = [backoff.delay(at_least) for _ in range(20)]
    assert all(delay >= min(at_least or 0, MOST_SECONDS) for delay in delays)
    assert max(delays) <= MOST_SECONDS
    if at_least is None:
        assert 0.5 <= delays[0] <= 1
        assert all(30 <= delay <= 60 for delay in delays[6:])
        assert len(set(delays[6:])) > 1  # by chance, so that not all workers come back at once


WALL_CLOCK = {
    "time.time",
    "time.time_ns",
    "time.localtime",
    "time.gmtime",
    "datetime.now",
    "datetime.utcnow",
    "datetime.today",
    "date.today",
}
# For what outlives the process, or is said in times of day or to another process.
MAY_ASK_THE_WALL_CLOCK = {
    *("net/cached_documents.py", "net/refusal_memo.py"),
    *("jobs/ledger.py", "jobs/totals.py", "clock.py"),  # hours of an owner's clock
    *("service/overview.py", "service/serve.py", "service/application_view.py"),
    "service/updates.py",  # tries of a release are written down, for the next life
    *("service/history.py", "service/watches.py", "page/app.py", "safety/gallery.py"),
    "cli/running_worker.py",
}


def wall_clock_uses(path: Path) -> set[str]:
    tree = ast.parse(path.read_text("utf-8"))
    dotted = {
        f"{node.value.id if isinstance(node.value, ast.Name) else node.value.attr}.{node.attr}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name | ast.Attribute)
    }
    imported = {
        f"{node.module}.{name.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for name in node.names
    }
    return (dotted | imported) & WALL_CLOCK


def test_a_wall_clock_that_jumps_changes_no_wait_and_no_deadline():
    assert worker.__file__ is not None
    top = Path(worker.__file__).parent
    modules = [path for path in top.rglob("*.py") if "sandbox" not in path.parts]
    asking = {str(module.relative_to(top)) for module in modules if wall_clock_uses(module)}
    assert "net/refusal_memo.py" in asking  # so that we see that the search finds something
    assert asking <= MAY_ASK_THE_WALL_CLOCK


# ---- pictures and files from elsewhere --------------------------------------------------------


STRANGE = [
    repeating(OK, b"X-More: of the same\r\n"),
    repeating(OK + b"X-Slow: ", b"x", 0.02),
    repeating(OK + b"Content-Length: 1000\r\n\r\n", b"x", 0.02),
    repeating(b"HTTP/1.1 302 Found\r\nLocation: /a\r\nX-Slow: ", b"x", 0.02),
    saying(b"HTTP/1.1 302 Found\r\nLocation: http://[::1\r\n\r\n"),
    saying(b"SSH-2.0-OpenSSH_9.6\r\n"),
    saying(b""),
]


@pytest.mark.parametrize("talk", STRANGE)
def test_no_server_of_a_source_picture_holds_its_job(talk: Talk):
    began = time.monotonic()
    fetcher = SourceFetcher("http://127.0.0.1", client_agent=AGENT, seconds=0.6, try_seconds=0.3)
    with raw_server(talk) as raw, pytest.raises(JobError, match=r"^source_image: "):
        fetcher.fetch(f"{raw.url}/a.webp")
    assert time.monotonic() - began < MOST_SECONDS_OF_A_CALL


@pytest.mark.parametrize("talk", STRANGE)
def test_no_site_holds_a_download_beyond_its_deadline(talk: Talk):
    began = time.monotonic()
    with raw_server(talk) as raw, pytest.raises(DownloadFailed):
        Web(AGENT, pause_seconds=0.05).read(f"{raw.url}/a", began + 0.6, 10_000)
    assert time.monotonic() - began < MOST_SECONDS_OF_A_CALL


ENDLESS_REDIRECT = repeating(b"HTTP/1.1 302 Found\r\nLocation: /a\r\n\r\n", b"x" * 65536)


def test_the_body_of_a_redirect_is_not_read_for_ever():
    with raw_server(ENDLESS_REDIRECT) as raw:
        assert "redirects are not followed" in str(trouble_at(raw.url, pop, 10))
        with pytest.raises(DownloadFailed, match="more than 5 redirects"):
            Web(AGENT).read(f"{raw.url}/a", elapsed_seconds() + 10, 10_000)


def test_a_download_may_have_all_the_time_in_the_world():
    with raw_server(saying(OK + b"\r\nhello")) as raw:
        assert Web(AGENT).read(f"{raw.url}/a", math.inf, 10_000) == b"hello"


def test_an_upload_in_a_redirect_is_not_sent_again(sandbox: Sandbox):
    with raw_server(saying(OK + b"\r\n")) as elsewhere:
        sandbox.faults.inject(Endpoint.UPLOAD, Redirect(f"{elsewhere.url}/a.webp"))
        trouble_at(sandbox.url, upload, upload_url=upload_url(sandbox))
        assert elsewhere.heard == []
