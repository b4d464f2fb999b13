"""The local horde hands out texts, pays for them and refuses as the server was seen to do."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import requests

from tests.support.sandbox_client import (
    CLIENT_KEY,
    MODELS,
    NEWBIE_KEY,
    UNKNOWN_ID,
    WORKER_KEY,
    Api,
    Json,
    MovableClock,
    assert_invalid,
    assert_refused,
)
from worker.sandbox import Sandbox

TIEFIGHTER = "koboldcpp/LLaMA2-13B-Tiefighter"
AGENT = "AI Horde Worker:24:https://example.org"
NEUTRAL = {"min_p": 0.0, "smoothing_factor": 0.0, "dynatemp_range": 0.0, "dynatemp_exponent": 1.0}


class Horde:
    def __init__(self) -> None:
        self.clock = MovableClock()
        self.sandbox = Sandbox(MODELS, clock=self.clock)
        self.sandbox.start()
        self.client = Api(self.sandbox.url, CLIENT_KEY)
        self.owner = Api(self.sandbox.url, WORKER_KEY)

    def ask(self, *, prompt: str = "Once upon a time", **changes: object) -> str:
        body: Json = {"prompt": prompt, "models": [TIEFIGHTER], **changes}
        reply = self.client.call("POST", "generate/text/async", body)
        assert reply.status_code == 202, reply.text
        return reply.json()["id"]

    def pop(self, **changes: object) -> requests.Response:
        body: Json = {"name": "a scribe", "models": [TIEFIGHTER], "bridge_agent": AGENT}
        return self.owner.call("POST", "generate/text/pop", body | changes)

    def submit(self, id: str, text: str = "x", **changes: object) -> requests.Response:
        body: Json = {"id": id, "generation": text} | changes
        return self.owner.call("POST", "generate/text/submit", body)

    def status(self, id: str) -> Json:
        return self.client.call("GET", f"generate/text/status/{id}").json()


@pytest.fixture
def horde() -> Iterator[Horde]:
    horde = Horde()
    yield horde
    horde.client.http.close()
    horde.owner.http.close()
    horde.sandbox.stop()


@pytest.mark.parametrize(("letters", "reward"), [(430, 10.08), (164, 5.17), (240, 7.56), (0, 2.52)])
def test_texts_are_paid_as_the_server_was_seen_to_pay(
    horde: Horde, letters: int, reward: float
) -> None:
    horde.ask(params={"max_length": 80})
    id = horde.pop().json()["id"]
    assert horde.submit(id, "x" * letters).json() == {"reward": reward}
    assert_refused(horde.submit(id), 400, "DuplicateGen")


def test_a_model_that_no_list_has_is_paid_the_same_whatever_serves_it(horde: Horde) -> None:
    for agent in (AGENT, "unknown:0:unknown"):
        horde.ask(prompt="x" * 4096, models=["mine"], validated_backends=False)
        id = horde.pop(models=["mine"], bridge_agent=agent).json()["id"]
        assert horde.submit(id, "x" * 400).json()["reward"] == pytest.approx(80 * 2.7 / 100 * 2.2)


def test_several_texts_have_an_id_each_and_a_payload_of_what_was_asked(horde: Horde) -> None:
    params = {"n": 3, "max_length": 80, "temperature": 0.7, "stop_sequence": ["\nYou:"]}
    id = horde.ask(params=params)
    job = horde.pop(amount=3).json()
    assert len(set(job["ids"])) == 3
    assert job["payload"] == {
        **params, "n": 1, "prompt": "Once upon a time", "max_context_length": 2048, **NEUTRAL,
    }  # fmt: skip
    assert (job["ttl"], job["model"]) == (150, TIEFIGHTER)
    for each in job["ids"]:
        assert horde.submit(each, state="csam").status_code == 200
    status = horde.status(id)
    assert (status["done"], status["finished"]) == (True, 3)
    assert status["generations"][0]["gen_metadata"] == [{"type": "censorship", "value": "csam"}]


def test_an_empty_pop_has_a_payload_of_defaults(horde: Horde) -> None:
    job = horde.pop().json()
    assert (job["id"], job["ids"], job["skipped"]) == (None, [], {})
    assert job["payload"] == {"max_context_length": 2048, "max_length": 80, **NEUTRAL}


def test_what_does_not_fit_is_not_handed_out_and_not_told(horde: Horde) -> None:
    horde.ask(params={"max_length": 600})
    horde.ask(params={"max_context_length": 8192})
    horde.ask(models=["another/model"])
    for changes in ({}, {"bridge_agent": "unknown:0:unknown", "max_length": 4096}):
        job = horde.pop(**changes).json()
        assert (job["id"], job["skipped"]) == (None, {})
    id = horde.ask(validated_backends=False)
    assert horde.pop(name="other", bridge_agent="unknown:0:unknown").json()["id"]
    assert horde.status(id)["processing"] == 1


def test_what_is_faulted_or_late_waits_again_under_another_id(horde: Horde) -> None:
    request = horde.ask()
    first = horde.pop().json()["id"]
    assert horde.submit(first, state="faulted").json() == {"reward": 0.0}
    second = horde.pop().json()["id"]
    assert second != first
    horde.clock.move(211)
    assert_refused(horde.submit(second), 400, "AbortedGen")
    third = horde.pop().json()["id"]
    assert horde.submit(third).status_code == 200
    status = horde.status(request)
    assert (status["restarted"], status["done"]) == (2, True)
    assert horde.submit(second, state="faulted").json() == {"reward": 0.0}
    assert horde.pop().json()["id"], "a fault that comes late has the text written once more"


def test_refusals_of_submit_and_pop(horde: Horde) -> None:
    horde.ask()
    id = horde.pop().json()["id"]
    assert_refused(horde.submit(UNKNOWN_ID), 404, "InvalidJobID")
    assert_invalid(horde.submit(id, state="nope"), "state")
    bad = [{"type": "lora", "value": "nsfw"}]
    assert_invalid(horde.submit(id, gen_metadata=bad), "gen_metadata.0.type")
    with Api(horde.sandbox.url, NEWBIE_KEY) as other, Api(horde.sandbox.url, "no key") as nobody:
        body = {"id": id, "generation": "x"}
        assert_refused(other.call("POST", "generate/text/submit", body), 403, "WrongCredentials")
        assert nobody.call("POST", "generate/text/submit", body).status_code == 500
    assert_refused(horde.pop(models=[]), 400, "BadRequest")
    assert_refused(horde.pop(models=["mine::client#2"]), 400, "BadRequest")
    assert_invalid(horde.pop(amount=30), "amount")
    assert_invalid(horde.pop(max_length="x"), "max_length")
    horde.owner.pop(name="a dreamer")
    assert_refused(horde.pop(name="a dreamer"), 400, "PolymorphicNameConflict")
    assert_refused(horde.owner.pop(name="a scribe"), 400, "PolymorphicNameConflict")
    forms: Json = {"name": "a scribe", "forms": ["caption"]}
    refused = horde.owner.call("POST", "interrogate/pop", forms)
    assert_refused(refused, 400, "PolymorphicNameConflict")
