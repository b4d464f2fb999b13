from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import requests

from hordelib.job.notes import GenMetadata, MetadataType, MetadataValue
from worker.errors import (
    HordeError,
    HordeOnHold,
    HordeRefused,
    HordeUnreachable,
    JobFate,
    NotAllowed,
    UnusableJob,
    UploadRefused,
)
from worker.horde.accounts import WorkerChanges
from worker.horde.api import Job, NothingToDo, Offer, Submission
from worker.horde.client import HordeClient
from worker.sandbox import ReferenceModel, Sandbox

AGENT = "AI Horde Worker:24.1.0:https://example.org"
MODEL = "Dreamer Demo"
OFFER = Offer(name="a worker", models=(MODEL,), bridge_agent=AGENT, max_pixels=1024**2, amount=4)
UNKNOWN_ID = "00000000-0000-0000-0000-000000000000"
REQUEST: dict[str, Any] = {
    "prompt": "a red circle ### blurry",
    "params": {"width": 512, "height": 512, "steps": 20, "n": 1, "seed": "7"},
    "models": [MODEL],
    "nsfw": False,
    "r2": True,
}


@dataclass
class Seen:
    """What a scripted server was asked."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


Answering = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Scripted:
    """A server that gives every request the same hand-written answer."""

    url: str
    seen: list[Seen] = field(default_factory=list[Seen])
    connections: int = 0


@contextmanager
def server(answering: Answering) -> Generator[Scripted]:
    scripted = Scripted("")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            scripted.connections += 1

        def _any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            scripted.seen.append(Seen(self.command, self.path, dict(self.headers), body))
            answering(self)

        do_GET = do_POST = do_PUT = _any

        def log_message(self, format: str, *args: object) -> None:
            """Nothing on the terminal."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    scripted.url = f"http://127.0.0.1:{http.server_address[1]}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield scripted
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


def packed_in_chunks(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Encoding", "gzip")
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    content = gzip.compress(json.dumps([{"name": f"m{n}", "count": n} for n in range(99)]).encode())
    for byte in content:
        handler.wfile.write(b"1\r\n%c\r\n" % byte)
    handler.wfile.write(b"0\r\n\r\n")


def saying(
    status: int, body: bytes | dict[str, Any], headers: dict[str, str] | None = None
) -> Answering:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in (headers or {}).items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    return answer


def half_a_body(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"reward":')
    handler.close_connection = True


def no_answer(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True


def client_of(url: str, key: str = "sandbox-worker-key-000", seconds: float = 10) -> HordeClient:
    return HordeClient(url, key, timeout=(seconds, seconds), client_agent=AGENT)


def asked(answering: Answering, call: Callable[[HordeClient], object]) -> object:
    with server(answering) as scripted, client_of(scripted.url) as client:
        return call(client)


def pop(client: HordeClient) -> object:
    return client.pop(OFFER)


def submit(client: HordeClient) -> object:
    return client.submit(Submission.ok(UNKNOWN_ID, 7))


# ---- bodies -----------------------------------------------------------------------------------


def test_the_pop_body_names_every_key_of_the_horde():
    offer = replace(OFFER, blacklist=("spider",), priority_usernames=("db0#1",), nsfw=False)
    assert offer.body() == {
        "name": "a worker",
        "models": (MODEL,),
        "bridge_agent": AGENT,
        "max_pixels": 1048576,
        "amount": 4,
        "threads": 1,
        "nsfw": False,
        "blacklist": ("spider",),
        "priority_usernames": ("db0#1",),
        "require_upfront_kudos": False,
        "allow_unsafe_ipaddr": True,
        "extra_slow_worker": False,
        "limit_max_steps": False,
        "allow_img2img": False,
        "allow_painting": False,
        "allow_post_processing": False,
        "allow_controlnet": False,
        "allow_sdxl_controlnet": False,
        "allow_lora": False,
        "sampler_execution_contract_version": "1.0",
    }


@pytest.mark.parametrize("offered", [True, False])
def test_extended_control_types_are_spoken_of_only_to_a_server_that_knows_them(offered: bool):
    assert "allow_extended_controlnet" not in OFFER.body()
    told = replace(OFFER, allow_extended_controlnet=offered).body()
    assert told == {**OFFER.body(), "allow_extended_controlnet": offered}


def test_a_submit_body_carries_seed_and_notes():
    notes = (
        GenMetadata.batch_index(1),
        GenMetadata(MetadataType.LORA, MetadataValue.DOWNLOAD_FAILED, "x" * 300),
        GenMetadata(MetadataType.CENSORSHIP, MetadataValue.NSFW),
    )
    assert Submission.ok("an id", 7, notes).body() == {
        "id": "an id",
        "generation": "R2",
        "seed": 7,
        "state": "ok",
        "censored": True,
        "gen_metadata": [  # what must not be cut off comes first
            {"type": "censorship", "value": "nsfw"},
            {"type": "batch_index", "value": "see_ref", "ref": "1"},
            {"type": "lora", "value": "download_failed", "ref": "x" * 255},
        ],
    }
    assert len(Submission.ok("an id", 7, notes * 20).body()["gen_metadata"]) == 50
    assert Submission.faulted("an id", 7).body() == {
        "id": "an id",
        "generation": "faulted",
        "seed": 7,
        "state": "faulted",
        "censored": False,
    }


# ---- broken answers ---------------------------------------------------------------------------


@pytest.mark.parametrize("call", [pop, submit])
@pytest.mark.parametrize(
    ("answering", "part"),
    [
        (saying(200, b"<html>Welcome to the hotel</html>"), "Welcome to the hotel"),
        (saying(403, b"<html>blocked</html>"), "blocked"),
        (saying(200, b""), "an empty answer"),
        (saying(200, b'{"reward": '), "not an answer of a horde"),
        (saying(200, b"[]"), "not an answer of a horde"),
        (saying(200, {"something": "else"}), "Field required"),
        (saying(200, b"\x80\xff\x00"), "not an answer of a horde"),
        (saying(200, b"junk", {"Content-Encoding": "gzip"}), "unpacked"),
        (saying(500, {"message": "Internal Server Error"}), "HTTP500"),
        (saying(502, b"<html>bad gateway</html>"), "HTTP502"),
        (saying(302, b"", {"Location": "https://elsewhere.example/"}), "elsewhere.example"),
        (half_a_body, "the answer was cut off"),
        (no_answer, "POST generate/"),
    ],
)
def test_an_answer_without_sense_may_be_asked_for_again(
    answering: Answering, part: str, call: Callable[[HordeClient], object]
):
    with pytest.raises(HordeUnreachable) as caught:
        asked(answering, call)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.retry_after_seconds is None


def test_nobody_listening_is_unreachable():
    with server(no_answer) as gone:
        pass
    with client_of(gone.url) as client, pytest.raises(HordeUnreachable, match="refused"):
        client.heartbeat()


def test_silence_ends_with_the_time_out():
    over = threading.Event()

    def stay_silent(_: BaseHTTPRequestHandler) -> None:
        over.wait(10)

    with server(stay_silent) as silent, client_of(silent.url, "k", 0.2) as it:
        with pytest.raises(HordeUnreachable, match="timed out"):
            it.heartbeat()
        over.set()


def test_an_answer_that_drips_for_ever_ends_with_the_time_out():
    over = threading.Event()

    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        with suppress(OSError):
            while not over.wait(0.02):
                handler.wfile.write(b" ")
        handler.close_connection = True

    with server(drip) as dripping, client_of(dripping.url, "k", 0.2) as client:
        with pytest.raises(HordeUnreachable, match="too slow"):
            client.heartbeat()
        over.set()


@pytest.mark.parametrize(("header", "seconds"), [("7", 7.0), ("soon", None), ("", None)])
def test_a_rate_limit_says_how_long_to_wait(header: str, seconds: float | None):
    limited = saying(429, {"message": "10 per 1 minute"}, {"Retry-After": header})
    with pytest.raises(HordeUnreachable, match="10 per 1 minute") as caught:
        asked(limited, pop)
    assert caught.value.retry_after_seconds == seconds


def test_an_answer_may_come_packed_and_in_chunks():
    names = asked(packed_in_chunks, lambda client: client.model_names())
    assert names == {f"m{n}" for n in range(99)}


def test_a_thread_keeps_its_connection():
    with server(saying(200, {"reward": 1.5})) as scripted, client_of(scripted.url) as client:
        for _ in range(3):
            client.submit(Submission.ok("an id", 7))
            client.upload(f"{scripted.url}/key", b"picture" * 100_000)
        assert scripted.connections == 1


def test_a_horde_on_this_machine_is_asked_without_a_proxy(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    asked(saying(200, {}), lambda client: client.heartbeat())


# ---- pops that need care ----------------------------------------------------------------------


def full_pop(**changes: object) -> dict[str, Any]:
    reply = {
        "payload": {"prompt": "a red circle", "seed": "7"},
        "id": "first",
        "ids": ["first", "second"],
        "messages": [],
        "ttl": 150,
        "skipped": {},
        "model": MODEL,
        "source_image": None,
        "source_processing": "img2img",
        "source_mask": None,
        "extra_source_images": None,
        "r2_upload": "http://127.0.0.1/1",
        "r2_uploads": ["http://127.0.0.1/1", "http://127.0.0.1/2"],
        "a key of tomorrow": True,
    }
    return {**reply, **changes}


def test_a_job_keeps_what_the_horde_said():
    message = {"id": "m", "message": "hello", "origin": "mods", "expiry": "Sun, 22 Nov 2026"}
    extras = [{"image": "http://127.0.0.1/e", "strength": 1}]
    reply = full_pop(messages=[message], source_image="http://s", extra_source_images=extras)
    job = asked(saying(200, reply), pop)
    assert isinstance(job, Job)
    assert (job.ids, job.upload_urls) == (("first", "second"), tuple(reply["r2_uploads"]))
    assert (job.model, job.ttl_seconds, job.payload) == (MODEL, 150, reply["payload"])
    assert (job.source_image, job.source_mask) == ("http://s", None)
    assert job.extra_sources[0].strength == 1.0
    assert job.messages[0].message == "hello"


def test_an_empty_pop_looks_full_but_has_no_id():
    empty = full_pop(id=None, ids=[], ttl=None, model=None, r2_upload=None, r2_uploads=None)
    popped = asked(saying(200, empty | {"skipped": {"nsfw": 2}}), pop)
    assert popped == NothingToDo(skipped={"nsfw": 2})


@pytest.mark.parametrize(
    "changes",
    [{"payload": None}, {"r2_uploads": None}, {"r2_uploads": ["one"]}, {"ttl": "soon"}],
)
def test_the_ids_of_a_broken_job_are_not_lost(changes: dict[str, object]):
    with pytest.raises(UnusableJob) as caught:
        asked(saying(200, full_pop(**changes)), pop)
    assert caught.value.ids == ("first", "second")


# ---- refusals ---------------------------------------------------------------------------------


def refused_with(rows: dict[str, Any], call: Callable[[HordeClient], object]) -> HordeError:
    status = 403 if rows.get("rc") else 400
    with pytest.raises(HordeError) as caught:
        asked(saying(status, {"message": "no"} | rows), call)
    return caught.value


def test_a_refusal_that_nobody_knows_is_judged_by_its_status():
    assert isinstance(refused_with({"rc": "NewOfTomorrow"}, pop), NotAllowed)
    assert isinstance(refused_with({"rc": "NewOfTomorrow"}, submit), HordeRefused)


def test_a_refused_body_names_its_fields():
    error = refused_with({"errors": {"amount": "21 is greater than 20"}}, pop)
    assert str(error) == "InvalidBody: no amount: 21 is greater than 20"


# ---- the api key ------------------------------------------------------------------------------


def test_the_key_goes_to_the_api_and_never_to_an_upload():
    with server(saying(200, {"reward": 1.5})) as scripted, client_of(scripted.url, "secret") as it:
        assert it.submit(Submission.ok("an id", 7)) == 1.5
        it.upload(f"{scripted.url}/bucket/key?signature=s", b"picture")
    submitted, uploaded = scripted.seen
    assert submitted.headers["apikey"] == "secret"
    assert submitted.headers["Client-Agent"] == AGENT
    assert submitted.path == "/api/v2/generate/submit"
    assert (uploaded.method, uploaded.body) == ("PUT", b"picture")
    assert uploaded.path == "/bucket/key?signature=s"
    assert uploaded.headers["Content-Type"] == "image/webp"
    assert uploaded.headers["Content-Length"] == "7"
    assert "secret" not in str(uploaded)


def test_the_key_follows_no_redirect_and_is_in_no_text():
    with server(saying(200, {})) as elsewhere:
        moved = saying(307, b"", {"Location": f"{elsewhere.url}/api/v2/generate/pop"})
        with server(moved) as scripted, client_of(scripted.url, "secret") as client:
            with pytest.raises(HordeUnreachable) as caught:
                client.pop(OFFER)
            assert "secret" not in repr(client) + repr(caught.value)
        assert elsewhere.seen == []


ECHOES = (
    saying(404, {"message": "User with api_key 'secret' not found.", "rc": "UserNotFound"}),
    saying(500, b"no such key: secret"),
)


@pytest.mark.parametrize("echo", ECHOES)
def test_a_key_that_the_horde_echoes_is_not_passed_on(echo: Answering):
    with (
        server(echo) as scripted,
        client_of(scripted.url, "secret") as client,
        pytest.raises(HordeError, match="<api_key>") as caught,
    ):
        client.whoami()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("key", ["a\nb", "ключ", " secret"])
def test_a_key_that_no_header_can_hold_is_refused_without_showing_it(key: str):
    with pytest.raises(ValueError, match="characters that no key has") as caught:
        HordeClient("http://127.0.0.1", key, client_agent=AGENT)
    assert key not in str(caught.value)


@pytest.mark.parametrize(("status", "error"), [(403, UploadRefused), (503, HordeUnreachable)])
def test_a_failed_upload_leaves_the_job_open(status: int, error: type[HordeError]):
    with pytest.raises(error) as caught:
        asked(saying(status, b"<Error/>"), lambda it: it.upload(f"{it.url}/key", b"picture"))
    if isinstance(caught.value, UploadRefused):
        assert caught.value.fate is JobFate.OPEN


# ---- a horde ----------------------------------------------------------------------------------


@pytest.fixture(name="sandbox")
def _sandbox() -> Iterator[Sandbox]:
    with Sandbox(models={MODEL: ReferenceModel(baseline="stable diffusion 1")}) as sandbox:
        yield sandbox


@pytest.fixture(name="client")
def _client(sandbox: Sandbox) -> Iterator[HordeClient]:
    with client_of(sandbox.url) as client:
        yield client


def request_images(sandbox: Sandbox, n: int = 1) -> str:
    body = REQUEST | {"params": REQUEST["params"] | {"n": n}}
    headers = {"apikey": "sandbox-client-key-000"}
    with requests.post(
        f"{sandbox.url}/api/v2/generate/async", json=body, headers=headers, timeout=10
    ) as response:
        assert response.status_code == 202, response.text
        return response.json()["id"]


def popped_job(client: HordeClient) -> Job:
    popped = client.pop(OFFER)
    assert isinstance(popped, Job)
    return popped


def test_a_job_goes_from_pop_to_kudos(sandbox: Sandbox, client: HordeClient):
    request_images(sandbox, n=2)
    job = popped_job(client)
    assert len(job.ids) == len(job.upload_urls) == 2
    assert (job.model, job.payload["ddim_steps"], job.ttl_seconds) == (MODEL, 20, 150)
    for index, (job_id, url) in enumerate(zip(job.ids, job.upload_urls, strict=True)):
        client.upload(url, f"picture {index}".encode())
        notes = (GenMetadata.batch_index(index),)
        assert client.submit(Submission.ok(job_id, 7 + index, notes)) > 0
        assert sandbox.image(job_id) == f"picture {index}".encode()
    assert isinstance(client.pop(OFFER), NothingToDo)


def test_a_second_submit_says_that_the_first_was_delivered(sandbox: Sandbox, client: HordeClient):
    request_images(sandbox)
    job = popped_job(client)
    client.submit(Submission.ok(job.ids[0], 7))
    with pytest.raises(HordeRefused) as caught:
        client.submit(Submission.ok(job.ids[0], 7))
    assert (caught.value.rc, caught.value.fate) == ("DuplicateGen", JobFate.DELIVERED)


def test_a_fault_earns_nothing_and_ends_the_job(sandbox: Sandbox, client: HordeClient):
    request_images(sandbox)
    job = popped_job(client)
    assert client.submit(Submission.faulted(job.ids[0])) == 0.0
    with pytest.raises(HordeRefused) as caught:
        client.submit(Submission.ok(job.ids[0], 7))
    assert caught.value.fate is not JobFate.OPEN


def test_an_unknown_job_is_over(client: HordeClient):
    with pytest.raises(HordeRefused) as caught:
        client.submit(Submission.ok(UNKNOWN_ID, 7))
    assert (caught.value.rc, caught.value.fate) == ("InvalidJobID", JobFate.OVER)


@pytest.mark.parametrize(
    ("key", "rc"), [("no-such-key", "InvalidAPIKey"), ("0000000000", "AnonForbiddenWorker")]
)
def test_a_key_that_may_not_serve_is_refused(sandbox: Sandbox, key: str, rc: str):
    with client_of(sandbox.url, key) as client, pytest.raises(NotAllowed) as caught:
        client.pop(OFFER)
    assert caught.value.rc == rc


def test_a_taken_name_and_an_unknown_model_stop_the_worker(sandbox: Sandbox, client: HordeClient):
    client.pop(OFFER)
    with client_of(sandbox.url, "sandbox-newbie-key-000") as other:
        with pytest.raises(NotAllowed, match="WrongCredentials") as caught:
            other.pop(OFFER)
        assert "dreamer_name" in caught.value.remedy
    with pytest.raises(NotAllowed, match="BadRequest"):
        client.pop(replace(OFFER, name="another", models=("Nobody's Model",)))


def test_a_worker_in_maintenance_keeps_asking_slowly(sandbox: Sandbox, client: HordeClient):
    client.pop(OFFER)
    worker = client.worker_by_name(OFFER.name, client.whoami())
    assert worker is not None
    changed = client.change_worker(worker.id, WorkerChanges(maintenance=True))
    assert changed.maintenance
    with pytest.raises(HordeOnHold, match="WorkerMaintenance") as caught:
        client.pop(OFFER)
    assert caught.value.retry_after_seconds > 0


def test_what_check_asks_the_horde(sandbox: Sandbox, client: HordeClient):
    client.heartbeat()
    account = client.whoami()
    assert (account.username, account.trusted) == ("owner#1", True)
    assert client.worker_by_name("nobody/at all?", account) is None
    client.pop(OFFER)
    worker = client.worker_by_name(OFFER.name, client.whoami())
    assert worker is not None
    assert (worker.name, worker.type, worker.online) == (OFFER.name, "image", True)
    assert client.model_names() == {MODEL}
    with client_of(sandbox.url, "no-such-key") as other, pytest.raises(NotAllowed):
        other.whoami()


def test_threads_share_a_client(sandbox: Sandbox, client: HordeClient):
    request_images(sandbox, n=4)
    job = popped_job(client)
    results = [Submission.ok(job_id, 7) for job_id in job.ids]
    with ThreadPoolExecutor(4) as threads:
        rewards = list(threads.map(client.submit, results))
    assert len(rewards) == 4
    assert min(rewards) > 0


MESSAGE = {"id": "m", "message": "hello", "expiry": "Sun, 22 Nov 2026"}


@pytest.mark.parametrize("odd", [None, "hello", [MESSAGE | {"expiry": None}, 7, MESSAGE]])
def test_no_job_is_lost_for_a_message_that_can_not_be_read(odd: object):
    job = asked(saying(200, full_pop(messages=odd)), pop)
    assert isinstance(job, Job)
    assert [each.message for each in job.messages] == (["hello"] if isinstance(odd, list) else [])


@pytest.mark.parametrize("odd", [None, 7, {"nsfw": 2, "models": None, "kudos": 0.5}])
def test_an_empty_pop_is_one_whatever_it_says_of_others(odd: object):
    popped = asked(saying(200, {"id": None, "ids": [], "skipped": odd}), pop)
    assert popped == NothingToDo(skipped={"nsfw": 2} if isinstance(odd, dict) else {})
