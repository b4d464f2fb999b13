"""What a server says that it knows decides which words are used towards it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from hordelib.job.notes import GenMetadata, MetadataType, MetadataValue
from tests.support.owner import wait_for
from tests.support.raw_server import raw_server, repeating, saying
from tests.support.sandbox_client import AGENT, CLIENT_KEY, MODEL, MODELS, WORKER_KEY, Api
from worker.errors import HordeError
from worker.horde.api import Job, NothingToDo, Offer, Submission
from worker.horde.client import HordeClient
from worker.horde.swagger import ServerWords
from worker.jobs.journal import Journal
from worker.jobs.ledger import Ledger
from worker.line.limits import Limits
from worker.line.popper import Popper
from worker.line.vocabulary import Vocabulary
from worker.sandbox import GATE_OF_5_1_5, Endpoint, Reply, Sandbox

OFFER = Offer(
    name="a worker",
    models=(MODEL,),
    bridge_agent=AGENT,
    max_pixels=1024**2,
    allow_img2img=True,
    allow_controlnet=True,
    allow_extended_controlnet=True,
)
INFORMATION = GenMetadata(MetadataType.INFORMATION, MetadataValue.SEE_REF, "x")
CENSORED = GenMetadata(MetadataType.CENSORSHIP, MetadataValue.CSAM)


@pytest.fixture
def horde() -> Iterator[Sandbox]:
    with Sandbox(MODELS) as running:
        yield running


@pytest.fixture
def worker(horde: Sandbox) -> Iterator[HordeClient]:
    with HordeClient(horde.url, WORKER_KEY, client_agent="tests") as client:
        yield client


def test_extended_control_types_are_offered_once_the_server_knows_the_word(
    horde: Sandbox, worker: HordeClient
):
    with Api(horde.url, CLIENT_KEY) as client:
        client.ask_id({"control_type": "tile"}, source_image=_PICTURE)
    before = worker.pop(OFFER)
    assert isinstance(before, NothingToDo)
    assert before.skipped["controlnet"] == 1
    worker.learn_words()
    assert "annotation" in worker.words.forms
    assert isinstance(worker.pop(OFFER), Job)


def test_a_server_of_5_1_5_is_told_nothing_that_it_does_not_know(
    horde: Sandbox, worker: HordeClient
):
    horde.horde.set_newest_gate(GATE_OF_5_1_5)
    worker.learn_words()
    assert not worker.words.extended_control
    assert "annotation" not in worker.words.forms
    assert {"caption", "RestoreFormer"} < worker.words.forms
    assert worker.words.note_types == frozenset(MetadataType)


def test_a_note_that_the_server_has_no_word_for_costs_no_picture(
    horde: Sandbox, worker: HordeClient
):
    with Api(horde.url, CLIENT_KEY) as client:
        client.ask_id()
    worker.words = ServerWords(note_types=frozenset({"lora"}))
    job = worker.pop(OFFER)
    assert isinstance(job, Job)
    assert worker.submit(Submission.ok(job.id, 1, (INFORMATION, CENSORED))) > 0
    notes = horde.books().generation(job.id).gen_metadata
    assert [note["type"] for note in notes] == ["censorship"], "a censored picture is told of"


def _described(**changes: Any) -> bytes:
    words = {"type": "string", "enum": ["lora"]}
    definitions: dict[str, Any] = {
        "ModelInterrogationFormStable": {"properties": {"name": words}},
        "GenerationMetadataStable": {"properties": {"type": words, "value": words}},
        "PopInputStable": {"properties": {"allow_extended_controlnet": {}}},
    }
    return json.dumps({"definitions": definitions | changes}).encode()


def _answer(body: bytes, status: str = "200 OK") -> bytes:
    return b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status.encode(), len(body), body)


_MANY_WORDS = {"properties": {"name": {"enum": ["x"] * 2000}}}
_NO_LIST = {"properties": {"type": {"enum": "lora"}, "value": {"enum": ["lora"]}}}

HOSTILE = {
    "no JSON": _answer(b"<html>"),
    "not an object": _answer(b"[1]"),
    "nothing in it": _answer(b"{}"),
    "no definition": _answer(_described(PopInputStable=None)),
    "a text for a list": _answer(_described(GenerationMetadataStable=_NO_LIST)),
    "too many words": _answer(_described(ModelInterrogationFormStable=_MANY_WORDS)),
    "too many values": _answer(_described(x=[1] * 40_000)),
    "too long": _answer(_described(x="y" * (3 << 20))),
    "too deep": _answer(b'{"definitions":' + b"[" * 20_000 + b"]" * 20_000 + b"}"),
    "not there": _answer(b'{"message": "no"}', "404 Not Found"),
    "elsewhere": b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\n\r\n",
    "cut off": _answer(_described())[:-20],
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_description_that_can_not_be_used_leaves_nothing_known(kind: str):
    with raw_server(saying(HOSTILE[kind])) as server, _knowing_much(server.url) as client:
        with pytest.raises(HordeError):
            client.learn_words()
        assert client.words == ServerWords()


def test_a_description_that_never_ends_is_given_up():
    beginning = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"
    with (
        raw_server(repeating(beginning, b" ", 0.02)) as server,
        _knowing_much(server.url) as client,
    ):
        began = time.monotonic()
        with pytest.raises(HordeError):
            client.learn_words()
        assert time.monotonic() - began < 10
        assert client.words == ServerWords()


def _knowing_much(url: str) -> HordeClient:
    client = HordeClient(url, WORKER_KEY, timeout=(0.5, 0.5), client_agent="tests")
    client.words = ServerWords(forms=frozenset({"caption"}), extended_control=True)
    return client


def test_the_words_of_a_server_are_read_again_and_again(
    horde: Sandbox, worker: HordeClient, caplog: pytest.LogCaptureFixture
):
    horde.faults.inject(Endpoint.SWAGGER, Reply(503), calls=2)
    stopping = threading.Event()
    try:
        Vocabulary(worker, stopping, pauses=(0.02, 0.02)).keep_up()
        wait_for(lambda: worker.words.extended_control, every=0.01)
        horde.horde.set_newest_gate(GATE_OF_5_1_5)
        wait_for(lambda: not worker.words.extended_control, every=0.01)
    finally:
        stopping.set()
    assert sum("could not be read" in line for line in caplog.messages) == 1


def test_a_worker_reads_the_words_before_it_asks_for_jobs(
    horde: Sandbox, worker: HordeClient, tmp_path: Path
):
    stopping = threading.Event()
    with closing(Ledger(tmp_path / "ledger.sqlite")) as ledger:
        journal = Journal(ledger)
        popper = Popper(worker, lambda: OFFER, stopping, journal=journal, limits=Limits())
        try:
            popper.introduce()
        finally:
            stopping.set()
    assert worker.words.extended_control
    assert horde.tally().calls.get("pop", 0) == 0


_PICTURE = (  # a white pixel
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGP4DwABAQEAG7buVgAAAABJRU5ErkJggg=="
)
