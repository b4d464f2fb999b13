"""Injected faults, and the server's own coming and going."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from base64 import b64encode

import pytest
import requests

from tests.support.sandbox_client import (
    CLIENT_KEY,
    MODELS,
    Api,
    MovableClock,
    assert_refused,
    offer,
    picture,
)
from worker.sandbox import (
    CutShort,
    Disconnect,
    Endpoint,
    Html,
    Latency,
    LostReply,
    PortTaken,
    Reply,
    Sandbox,
)

SOURCE = b64encode(picture()).decode()


def test_faults_hit_as_many_calls_as_they_were_given(sandbox: Sandbox, worker: Api):
    sandbox.faults.inject("pop", Reply(503, retry_after_seconds=5), calls=2)
    refused = worker.pop()
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
    assert [worker.pop().status_code for _ in range(2)] == [503, 200]


def test_faults_with_a_probability_repeat_with_their_seed(sandbox: Sandbox, worker: Api):
    def draw() -> list[int]:
        sandbox.faults.clear()
        sandbox.faults.inject(Endpoint.POP, Html(), probability=0.5, seed=3)
        return [worker.pop().status_code for _ in range(12)]

    first = draw()
    assert set(first) == {200, 502}
    assert draw() == first


def test_a_lost_reply_leaves_the_work_done(sandbox: Sandbox, client: Api, worker: Api):
    client.ask_id()
    job = worker.pop_job()
    sandbox.faults.inject(Endpoint.SUBMIT, LostReply(), calls=1)
    with pytest.raises(requests.ConnectionError):
        worker.submit(job["id"])
    assert_refused(worker.submit(job["id"]), 400, "DuplicateGen")


def test_a_disconnect_leaves_the_work_undone(sandbox: Sandbox, client: Api, worker: Api):
    client.ask_id()
    sandbox.faults.inject(Endpoint.POP, Disconnect(), calls=1)
    with pytest.raises(requests.ConnectionError):
        worker.pop()
    worker.pop_job()


def test_a_download_may_be_cut_short(sandbox: Sandbox, client: Api, worker: Api):
    client.ask_id(source_image=SOURCE)
    job = worker.pop_job()
    sandbox.faults.inject(Endpoint.SOURCE, CutShort(), calls=1)
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        worker.http.get(job["source_image"], timeout=120)
    assert worker.http.get(job["source_image"], timeout=120).status_code == 200


def test_a_slow_reply_times_the_caller_out(sandbox: Sandbox, worker: Api):
    sandbox.faults.inject(Endpoint.POP, Latency(30), calls=1)
    with pytest.raises(requests.ReadTimeout):
        worker.http.post(f"{sandbox.url}/api/v2/generate/pop", json=offer(), timeout=0.1)
    assert worker.pop().status_code == 200


def test_an_unknown_endpoint_cannot_fail(sandbox: Sandbox):
    with pytest.raises(ValueError, match="nonsense"):
        sandbox.faults.inject("nonsense", Html())


def test_a_stopped_sandbox_comes_back_with_its_books_on_its_port(clock: MovableClock):
    sandbox = Sandbox(MODELS, clock=clock)
    sandbox.start()
    with Api(sandbox.url, CLIENT_KEY) as client:
        id = client.ask_id()
        sandbox.stop()
        sandbox.stop()
        with pytest.raises(requests.ConnectionError):
            client.check(id)
        with sandbox:
            assert client.check(id)["waiting"] == 1


def test_a_taken_port_is_reported_in_one_line():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortTaken, match=f"127.0.0.1:{port}: ") as caught:
            Sandbox(MODELS, port).start()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_says_how_to_use_it_and_ends_on_a_signal(number: signal.Signals):
    code = "from worker.sandbox import *; serve({'Demo': ReferenceModel('stable diffusion 1')}, 0)"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        assert first.startswith("A local horde listens on http://127.0.0.1:")
        url = first.split()[-1]
        assert requests.get(f"{url}/api/v2/status/heartbeat", timeout=120).status_code == 200
        process.send_signal(number)
        rest = process.stdout.read()
    assert process.returncode == 0
    assert rest.endswith("The sandbox has stopped.\n")
    assert CLIENT_KEY in rest
    assert "/api/v2/generate/async" in rest
