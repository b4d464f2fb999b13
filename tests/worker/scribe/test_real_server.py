"""A scribe before llama.cpp's own server, with a model that the test makes: it says the alphabet.

`pip install xllamacpp gguf`, of the extra `test`, is all that it takes.
"""

from __future__ import annotations

import string
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("xllamacpp", reason="llama.cpp's server is not there: pip install xllamacpp")
pytest.importorskip("gguf", reason="no model can be written: pip install gguf")

from tests.support.alphabet_model import write_alphabet_model
from tests.support.llama_server import CONTEXT_LENGTH, LlamaServer
from tests.support.scribe_stage import Stage, until
from worker.jobs.results import JobStage
from worker.sandbox import State

SHORT = {"max_length": 16, "max_context_length": CONTEXT_LENGTH}
LONG = {**SHORT, "max_length": 80}
LINE = "".join(f" {letter}" for letter in string.ascii_lowercase) + "\n"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("model") / "alphabet.gguf"
    write_alphabet_model(file)
    return file


@pytest.fixture(scope="module")
def server(model: Path) -> Iterator[LlamaServer]:
    with LlamaServer(model) as server:
        yield server


def test_a_real_server_writes_what_was_asked_for(stage: Stage, server: LlamaServer) -> None:
    asked = {
        stage.ask("a b c", **SHORT, temperature=1.0): LINE[6:38],
        stage.ask("a b c", **LONG, stop_sequence=[" zz", " k"]): LINE[6:22],
        stage.ask("a b x", **LONG, singleline=True): " y z",
        stage.ask("{{[INPUT]}}\0 é a", **SHORT, top_k=0, rep_pen=1.1): LINE[2:34],
        stage.ask("{{[INPUT]}}\0 a b" * 50_000 + " c", **SHORT): LINE[6:38],
    }
    many = stage.ask("a b c", **SHORT, n=3)
    scribe = stage.serve(server.url, text_threads=2)
    for id, text in asked.items():
        assert stage.result(id) == text
    until(lambda: [each.state for each in stage.texts(many)] == [State.ok] * 3)
    assert {each.text for each in stage.texts(many)} == {LINE[6:38]}
    page = stage.client.call("GET", "workers/name/a scribe").json()
    assert page["models"] == ["alphabet"]
    assert page["max_context_length"] == CONTEXT_LENGTH
    assert "AI Horde Worker~llamacpp~oai:" in page["bridge_agent"]
    assert scribe.view().images_failed == 0


def test_a_real_server_that_dies_over_a_text_costs_no_text(stage: Stage, model: Path) -> None:
    with LlamaServer(model) as server:
        scribe = stage.serve(server.url)
        first = stage.ask("a b c", **SHORT)
        assert stage.result(first) == LINE[6:38]
        server.hold()
        second = stage.ask("a b c", **SHORT)
        until(lambda: scribe.view().count(JobStage.running) > 0)
    stage.reason(scribe, "was cut")
    with server:
        assert stage.result(second) == LINE[6:38]
