"""Who may come in, over real HTTP."""

from __future__ import annotations

import json
import socket
from collections.abc import Generator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests

from tests.support.open_page import API_KEY, PASSWORD, OpenPage, open_page
from tests.support.owner import wait_for
from worker.page.access import TRIES, hashed
from worker.page.live import MOST_PAGES
from worker.service.orders import Order


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Generator[OpenPage]:
    """Without a password."""
    with open_page(tmp_path_factory.mktemp("page")) as opened:
        yield opened


@pytest.fixture
def locked(tmp_path: Path) -> Generator[OpenPage]:
    with open_page(tmp_path, f"page_password: {hashed(PASSWORD)}\n") as opened:
        yield opened


def raw(page: OpenPage, request: bytes, most: int = 4096) -> bytes:
    url = urlsplit(page.url)
    with socket.create_connection((url.hostname or "", url.port or 0), timeout=120) as connection:
        connection.sendall(request)
        return connection.recv(most)


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "LOCALHOST", "[::1]", "localhost:8000"])
def test_the_names_of_this_machine_come_in_without_a_password(page: OpenPage, name: str):
    assert page.get("/", Host=name).status_code == 200


@pytest.mark.parametrize(
    "name",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil",
        "",
        "192.168.1.7",
        "[::",
        "0.0.0.0",
    ],
)
def test_other_names_that_lead_here_stay_out(page: OpenPage, name: str):
    for path in ("/", "/events", "/api/log", "/api/settings", "/page.css"):
        assert page.get(path, Host=name).status_code in (400, 403)


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "X-Real-IP", "Via"])
def test_what_a_proxy_passes_on_needs_a_password(page: OpenPage, header: str):
    reply = page.get("/", **{header: "203.0.113.7"})
    assert (reply.status_code, "page_password" in reply.text) == (403, True)


@pytest.mark.parametrize(
    "origin", ["", "http://evil.example", "null", "http://127.0.0.1:1", "http://[::"]
)
def test_what_another_site_sends_changes_nothing(page: OpenPage, origin: str):
    for path in ("/api/order", "/api/settings", "/api/models/remove", "/login", "/logout"):
        reply = page.post(path, {"order": "drain"}, Origin=origin)
        assert reply.status_code == 403
    assert not page.watched.orders.is_given(Order.drain)


def test_what_another_site_embeds_gets_nothing(page: OpenPage):
    for path in ("/api/log", "/events", "/page.js", "/"):
        assert page.get(path, **{"Sec-Fetch-Site": "cross-site"}).status_code == 403
        assert page.get(path, Origin="http://evil.example").status_code == 403
    visit = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert page.get("/", **visit).status_code == 200


def test_a_form_of_another_kind_is_no_order(page: OpenPage):
    with requests.Session() as http:
        http.headers["Origin"] = page.url
        for kind in ("text/plain", "application/x-www-form-urlencoded"):
            reply = http.post(
                page.url + "/api/order",
                data=b'{"order":"drain"}',
                headers={"Content-Type": kind},
                timeout=120,
            )
            assert reply.status_code == 400


@pytest.mark.parametrize("path", ["/", "/page.js", "/api/log", "/nowhere", "/../bridgeData.yaml"])
def test_every_answer_carries_the_policy(page: OpenPage, path: str):
    headers = page.get(path).headers
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"
    assert not [name for name in headers if name.lower().startswith("access-control")]


def test_the_stream_carries_the_policy_too(page: OpenPage):
    with requests.get(page.url + "/events", stream=True, timeout=120) as reply:
        assert reply.headers["Content-Security-Policy"]
        assert reply.headers["Content-Type"] == "text/event-stream"


def test_nothing_on_the_page_is_from_elsewhere(page: OpenPage):
    for path in ("/", "/login", "/page.css", "/page.js", "/views.js", "/charts.js", "/login.js"):
        text = page.get(path).text.replace("http://www.w3.org/2000/svg", "")
        assert "http:" not in text
        assert "https:" not in text


def test_a_body_of_a_gigabyte_is_not_read(page: OpenPage):
    host = urlsplit(page.url).netloc.encode()
    head = b"POST /api/order HTTP/1.1\r\nHost: " + host + b"\r\nOrigin: " + page.url.encode()
    head += b"\r\nContent-Type: application/json\r\n"
    assert b" 413 " in raw(page, head + b"Content-Length: 1073741824\r\n\r\n")
    chunks = b"".join(b"10000\r\n" + b"x" * 65536 + b"\r\n" for _ in range(2))
    assert b" 413 " in raw(page, head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)
    assert page.get("/").status_code == 200


def test_more_pages_than_there_may_be_are_told_so_until_others_are_closed(tmp_path: Path):
    def is_open(page: OpenPage) -> bool:
        with requests.get(page.url + "/events", stream=True, timeout=120) as reply:
            return next(reply.iter_lines()) == b"event: now"

    with open_page(tmp_path) as page:
        with ExitStack() as streams:
            for _ in range(MOST_PAGES):
                reply = requests.get(page.url + "/events", stream=True, timeout=120)
                assert next(streams.enter_context(reply).iter_lines()) == b"event: now"
            assert page.get("/events").status_code == 503
            assert page.get("/api/log").status_code == 200
        wait_for(lambda: is_open(page))


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"order": 3}', b"[" * 60000, b"\xff"])
def test_what_is_no_order_is_refused_with_a_line(page: OpenPage, body: bytes):
    headers = {"Origin": page.url, "Content-Type": "application/json"}
    reply = requests.post(page.url + "/api/order", data=body, headers=headers, timeout=120)
    assert (reply.status_code, len(json.loads(reply.text)["problems"])) == (400, 1)


def test_the_api_key_is_nowhere(page: OpenPage):
    import logging

    logging.getLogger("worker").warning("the horde says: no such key %s", API_KEY)
    for path in ("/api/settings", "/api/log", "/api/horde", "/"):
        assert API_KEY not in page.get(path).text
    with requests.get(page.url + "/events", stream=True, timeout=120) as reply:
        lines = reply.iter_lines(decode_unicode=True)
        now = next(line for line in lines if line.startswith("data: {"))
    assert API_KEY not in now
    assert json.loads(now[6:])["overview"]["kudos"] == 1234.5


# ---- with a password ---------------------------------------------------------------------------


def test_with_a_password_all_else_is_closed_also_to_this_machine(locked: OpenPage):
    paths = ("/events", "/api/log", "/api/settings", "/api/loras", "/pictures/1", "/page.js")
    for path in (*paths, "/nowhere"):
        assert locked.get(path).status_code == 401
    assert locked.get("/").headers["Location"] == "/login"
    assert locked.get("/login").status_code == 200
    assert locked.post("/api/order", {"order": "drain"}).status_code == 401
    with requests.Session() as http:
        assert locked.post("/login", {"password": PASSWORD}, http).status_code == 200
        cookie = next(iter(http.cookies))
        assert cookie.has_nonstandard_attr("HttpOnly")
        assert cookie.get_nonstandard_attr("SameSite") == "Strict"
        assert http.get(locked.url + "/api/log", timeout=120).status_code == 200
        assert (
            http.get(locked.url + "/", headers={"Host": "my.example"}, timeout=120).status_code
            == 200
        )
        assert locked.post("/api/order", {"order": "pause"}, http).status_code == 200
        token = cookie.value
        locked.post("/logout", {}, http)
        assert locked.get("/api/log", Cookie=f"dreamer_session={token}").status_code == 401


def test_a_hundred_wrong_passwords_are_not_heard(locked: OpenPage):
    with requests.Session() as http:
        replies = [locked.post("/login", {"password": f"wrong {n}"}, http) for n in range(100)]
        assert [reply.status_code for reply in replies] == [403] * TRIES + [429] * (100 - TRIES)
        assert "min" in replies[-1].json()["problems"][0]
        assert int(replies[-1].headers["Retry-After"]) > 60
        assert locked.post("/login", {"password": PASSWORD}, http).status_code == 429


@pytest.mark.parametrize("password", [None, 3, "", "x" * 2000, ["a"], "\ud800"])
def test_what_is_no_password_is_refused(locked: OpenPage, password: object):
    assert locked.post("/login", {"password": password}).status_code in (400, 403)


def test_a_readable_password_is_replaced_by_its_hash(tmp_path: Path):
    with open_page(tmp_path, f'page_password: "{PASSWORD}"  # of the sofa\n') as page:
        assert page.post("/login", {"password": PASSWORD}).status_code == 200
        text = page.watched.config_file.read_text("utf-8")
    assert PASSWORD not in text
    assert "# of the sofa" in text
    assert [path.name for path in tmp_path.iterdir()].count("bridgeData.yaml.backup-1") == 0
