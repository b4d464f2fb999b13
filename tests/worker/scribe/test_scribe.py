"""A scribe between the local horde and a text server, over HTTP: every text ends once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web

from hordelib.errors import InvalidParams
from tests.support.sandbox_client import WORKER_KEY, Api, Json
from tests.support.scribe_stage import LONG_SECONDS, Stage, reasons, until
from tests.support.text_servers import CompletionsServer, KoboldServer, pieces, streamed, told
from worker.cli.scrubbing import Scrubber
from worker.horde.api import State as HordeState
from worker.horde.client import HordeClient
from worker.horde.kinds import Kind
from worker.horde.texts import TextOffer, TextSubmission
from worker.jobs.journal import Journal
from worker.jobs.ledger import FILE, Ledger
from worker.jobs.results import JobStage, Solved
from worker.sandbox import Endpoint, HandedOutAgain, LostReply, NamedTwice, Reply, State
from worker.scribe.order import read_order

TIEFIGHTER = "koboldcpp/LLaMA2-13B-Tiefighter"

PARAMS: Json = {"max_length": 80, "temperature": 0.7, "rep_pen": 1.1, "top_k": 0, "min_p": 0.1}
PROMPT = "a\0 {{[INPUT]}} of ünïcode {{[OUTPUT]}}"


@pytest.mark.parametrize("streams", [True, False])
def test_a_kobold_server_gets_the_payload_as_it_is(stage: Stage, streams: bool) -> None:
    with KoboldServer(streams=streams) as server:
        id = stage.ask(PROMPT, **PARAMS, stop_sequence=["\nYou:"])
        stage.serve(server.url)
        assert stage.result(id) == told(PROMPT).replace("\0", "")
        (body,) = server.bodies
        assert body["prompt"] == PROMPT
        assert {key: body[key] for key in PARAMS} == PARAMS
        assert body["stop_sequence"] == ["\nYou:"]
        (entry,) = stage.texts(id)
        assert (entry.model, entry.scribe) == (TIEFIGHTER, "a scribe")
        page = stage.client.call("GET", "workers/name/a scribe").json()
        assert (page["max_length"], page["max_context_length"]) == (256, 4096)
        software = "koboldcpp" if streams else "koboldai"
        assert page["bridge_agent"].startswith(f"AI Horde Worker~{software}~kai:")


def test_a_completions_server_gets_it_in_its_own_words(stage: Stage) -> None:
    with CompletionsServer(key="a-key", owned_by="aphrodite") as server:
        id = stage.ask(PROMPT, **PARAMS, n=3)
        stage.serve(server.url, text_key="a-key", text_threads=3)
        until(lambda: [each.state for each in stage.texts(id)] == [State.ok] * 3)
        assert {each.text for each in stage.texts(id)} == {told(PROMPT).replace("\0", "")}
        assert len({each.popped_at for each in stage.texts(id)}) == 1, "popped together"
        body = server.bodies[0]
        words = {"max_tokens": 80, "repetition_penalty": 1.1, "top_k": -1, "min_p": 0.1}
        assert {key: body[key] for key in words} == words
        assert body["truncate_prompt_tokens"] == 2048 - 80
        assert not {"smoothing_factor", "rep_pen", "max_length"} & set(body)
        page = stage.client.call("GET", "workers/name/a scribe").json()
        assert page["models"] == ["aphrodite/mine/model-7B"]
        assert page["max_context_length"] == 8192


def test_a_server_that_knows_the_plain_keys_alone_gets_no_others(stage: Stage) -> None:
    plain = ["model", "prompt", "max_tokens", "temperature", "top_p", "stop", "n", "stream"]
    with CompletionsServer("/srv/models/mine-7B.gguf", "", frozenset(plain)) as server:
        id = stage.ask(**PARAMS, tfs=0.9, singleline=True)
        scribe = stage.serve(server.url, branded_model=True, max_length=100)
        assert stage.result(id) == told("Once upon a time")
        (entry,) = stage.texts(id)
        assert entry.model == "mine-7B::owner#1", "and nothing of the owner's folders"
        assert scribe.view().images_failed == 0


def test_a_text_ends_where_its_client_wants(stage: Stage) -> None:
    with KoboldServer() as server:
        asked = {
            stage.ask(
                "one", stop_sequence=["for a while"]
            ): " text of one, which goes on for a while",
            stage.ask("two\nthree", singleline=True): " text of two",
            stage.ask("four. Five", frmttriminc=True): told("four. Five"),
            stage.ask("a#b", frmtrmspch=True): told("ab"),
        }
        stage.serve(server.url)
        for id, text in asked.items():
            assert stage.result(id) == text
        assert len(server.aborted) == 2, "what nobody wants any more is not written"


async def html(request: web.Request) -> web.StreamResponse:
    return web.Response(text="<html><h1>Bad gateway</h1></html>", content_type="text/html")


async def refusing(request: web.Request) -> web.StreamResponse:
    return web.json_response({"detail": "no such sampler"}, status=422)


async def repeating_the_prompt(request: web.Request) -> web.StreamResponse:
    return web.json_response({"detail": [{"input": await request.json()}]}, status=422)


async def breaking_off(request: web.Request) -> web.StreamResponse:
    return await streamed(request, *pieces("half of a text")[:2], ends=False)


async def stopping_short(request: web.Request) -> web.StreamResponse:
    return await streamed(request, *pieces("half of a text")[:2])


async def lying_about_its_length(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "5000"})
    await response.prepare(request)
    await response.write(b'{"results": [{"text": "short"}]}')
    if request.transport is not None:
        request.transport.close()
    return response


async def endless(request: web.Request) -> web.StreamResponse:
    return await streamed(request, *({"token": "x" * 1000} for _ in range(30)))


async def no_text(request: web.Request) -> web.StreamResponse:
    return await streamed(request, {"token": ["a list"]})


async def too_much(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(6):
        await response.write(b" " * (1 << 20))
    return response


@pytest.mark.parametrize(
    ("instead", "reason"),
    [
        (html, "no answer of a text server"),
        (refusing, "no such sampler"),
        (breaking_off, "cut"),
        (stopping_short, "broke off a text"),
        (lying_about_its_length, "cut off"),
        (endless, "more than the 80 tokens"),
        (no_text, "streams what is no text"),
        (too_much, "more than 4194304 bytes"),
    ],
)
def test_what_is_no_text_is_a_fault_with_its_reason_and_the_next_is_written(
    stage: Stage, instead: Any, reason: str
) -> None:
    with KoboldServer(instead=instead) as server:
        id = stage.ask(max_length=80)
        scribe = stage.serve(server.url)
        stage.reason(scribe, reason)
        server.instead = None
        assert stage.result(id) == told("Once upon a time")


def test_a_prompt_of_a_megabyte_is_handed_on(stage: Stage) -> None:
    with KoboldServer() as server:
        prompt = "{{[INPUT]}}\0" * 90_000
        id = stage.ask(prompt)
        stage.serve(server.url)
        assert stage.result(id) == told(prompt).replace("\0", "")
        assert server.bodies[0]["prompt"] == prompt


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prompt", None),
        ("prompt", ["a", "list"]),
        ("prompt", "x" * ((16 << 20) + 1)),
        ("max_length", 1 << 40),
        ("max_length", "80"),
        ("max_context_length", -1),
        ("stop_sequence", ["x"] * 1001),
        ("singleline", 1),
    ],
)
def test_a_payload_that_is_none_names_the_field(field: str, value: object) -> None:
    with pytest.raises(InvalidParams, match=field):
        read_order({"prompt": "", field: value})


def test_a_server_without_room_is_waited_for(stage: Stage) -> None:
    async def busy_once(request: web.Request) -> web.StreamResponse:
        server.instead = None
        return web.json_response({"detail": {"msg": "Server is busy"}}, status=503)

    with KoboldServer(instead=busy_once, idle=0) as server:
        id = stage.ask()
        stage.serve(server.url)
        until(lambda: stage.sandbox.tally().calls.get("find_user", 0) > 0)
        assert stage.texts(id) == [], "its owner uses it"
        server.idle = 1
        assert stage.result(id) == told("Once upon a time")
        assert len(stage.texts(id)) == 1


def test_a_server_that_is_not_there_costs_no_text_and_is_found_when_it_comes(stage: Stage) -> None:
    id = stage.ask()
    with KoboldServer() as gone:
        pass
    scribe = stage.serve(gone.url)
    until(lambda: "connection refused" in scribe.view().obstacle.told)
    assert stage.texts(id) == []
    scribe.stop()
    assert scribe.join(LONG_SECONDS)
    with KoboldServer() as server:
        again = stage.serve(server.url)
        assert stage.result(id) == told("Once upon a time")
        until(lambda: not again.view().obstacle.told)


def test_a_server_that_comes_back_with_another_model_writes_nothing_under_the_old_name(
    stage: Stage,
) -> None:
    async def restarting(request: web.Request) -> web.StreamResponse:
        server.model, server.instead = "koboldcpp/Other-7B", None
        return web.json_response({"results": [{"text": "by the other one"}]})

    with KoboldServer(instead=restarting) as server:
        id = stage.ask()
        scribe = stage.serve(server.url)
        stage.reason(scribe, "another model meanwhile: koboldcpp/Other-7B")
        assert stage.result(id) == told("Once upon a time")
        assert [each.model for each in stage.texts(id)] == [TIEFIGHTER, "koboldcpp/Other-7B"]


def test_a_text_that_is_whole_is_delivered_although_its_server_has_gone(stage: Stage) -> None:
    async def last_words(request: web.Request) -> web.StreamResponse:
        server.is_gone = True
        return await streamed(request, *pieces("the last words"))

    with KoboldServer(instead=last_words) as server:
        id = stage.ask()
        stage.serve(server.url)
        assert stage.result(id) == " the last words"


def test_answers_of_the_horde_that_are_lost_or_doubled_end_each_text_once(stage: Stage) -> None:
    faults = stage.sandbox.faults
    faults.inject(Endpoint.TEXT_SUBMIT, LostReply(), calls=2)
    faults.inject(Endpoint.TEXT_SUBMIT, Reply(500), calls=1)
    faults.inject(Endpoint.TEXT_POP, NamedTwice(), calls=1)
    with KoboldServer() as server:
        ids = [stage.ask(f"prompt {number}") for number in range(4)]
        stage.serve(server.url)
        for number, id in enumerate(ids):
            assert stage.result(id) == told(f"prompt {number}")
        for text in stage.sandbox.books().texts:
            assert [settling.rc for settling in text.settlings].count("") == 1, text


def left_over(stage: Stage, *, is_said: bool, seconds_ago: float = 0.0) -> None:
    """What a killed life has popped; with `is_said`, it had told the horde of a text, too."""
    horde = HordeClient(stage.sandbox.url, WORKER_KEY, client_agent="test:1:x")
    offer = TextOffer(
        name="a scribe",
        models=(TIEFIGHTER,),
        bridge_agent="x:1:y",
        max_length=512,
        max_context_length=4096,
    )
    (text,) = horde.pop_texts(offer).tasks
    journal = Journal(stage.ledger, kind=Kind.text)
    slots = [replace(slot, over_at=slot.over_at - seconds_ago) for slot in text.slots]
    journal.popped(slots, text.label, text.asked)
    if is_said:
        journal.solved(Solved(text.slots[0], "of the first life"))
        horde.submit_task(TextSubmission(text.id, HordeState.OK, "of the first life"))
    horde.close()
    stage.ledger.close()
    stage.ledger = Ledger(stage.folder / FILE)
    assert stage.ledger.owed() == [], "no picture's journal sees it"


def test_an_id_that_ended_and_is_handed_out_again_is_written_no_more(stage: Stage) -> None:
    """The horde counts what is said of it then as a second word."""
    with KoboldServer() as server:
        stage.serve(server.url)
        first = stage.ask("once")
        assert stage.result(first) == told("once")
        stage.sandbox.faults.inject(Endpoint.TEXT_POP, HandedOutAgain(), calls=2)
        assert stage.result(stage.ask("another")) == told("another")
        assert [each.rc for each in stage.texts(first)[0].settlings] == [""]


def test_a_text_that_a_killed_life_has_left_is_written_by_the_next(stage: Stage) -> None:
    id = stage.ask("left over")
    left_over(stage, is_said=False)
    with KoboldServer() as server:
        stage.serve(server.url)
        assert stage.result(id) == told("left over")
        assert len(stage.texts(id)) == 1


def test_the_horde_hears_of_no_fault_after_it_has_given_the_text_to_another(stage: Stage) -> None:
    """It would have the text written once more, and its client would pay for both."""
    id = stage.ask("left over")
    left_over(stage, is_said=False, seconds_ago=3600)
    with KoboldServer() as server:
        scribe = stage.serve(server.url)
        assert stage.result(stage.ask("the next")) == told("the next")
        assert not stage.texts(id)[0].settlings
        assert scribe.view().rows[0].ends[0].stage is JobStage.given_up


def test_a_completions_server_that_breaks_a_text_off_says_why(stage: Stage) -> None:
    async def out_of_memory(request: web.Request) -> web.StreamResponse:
        server.instead = None
        half = {"choices": [{"text": " half of"}]}
        return await streamed(request, half, {"error": {"message": "out of memory"}})

    with CompletionsServer(instead=out_of_memory) as server:
        id = stage.ask()
        stage.reason(stage.serve(server.url), 'breaks a text off: "{')
        assert stage.result(id) == told("Once upon a time")


def test_what_a_server_repeats_of_a_prompt_is_in_quotes(stage: Stage) -> None:
    """So it is in no report and in no history."""
    with KoboldServer(instead=repeating_the_prompt) as server:
        stage.ask('a "secret" story')
        scribe = stage.serve(server.url)
        stage.reason(scribe, "secret")
        (reason,) = {reason for reason in reasons(scribe.view()) if reason}
        told = "\n".join(Scrubber(()).log(f"2026-12-01 10:00:00 WARNING x faulted: {reason}"))
        assert "secret" not in told
        assert "with 422: (quoted)" in told


def test_a_life_that_is_killed_at_its_last_word_says_the_same_again(stage: Stage) -> None:
    """Although its text server is broken by then."""
    id = stage.ask("said")
    left_over(stage, is_said=True)
    with KoboldServer(instead=html) as server:
        stage.serve(server.url)
        until(lambda: len(stage.texts(id)[0].settlings) == 2)
        said = [(each.state, each.rc) for each in stage.texts(id)[0].settlings]
        assert said == [("ok", ""), ("ok", "DuplicateGen")]
        assert server.bodies == []


def test_a_server_of_chats_alone_costs_one_text_and_gets_no_more(stage: Stage) -> None:
    with CompletionsServer(completes=False) as server:
        ids = [stage.ask(), stage.ask()]
        scribe = stage.serve(server.url)
        until(lambda: "it continues no prompts" in scribe.view().obstacle.told)
        assert sum(len(stage.texts(id)) for id in ids) == 1


def test_a_paused_scribe_pops_no_text_and_says_what_its_server_keeps(stage: Stage) -> None:
    with KoboldServer() as server:
        stage.line.is_paused = True
        scribe = stage.serve(server.url)
        until(lambda: "keeps what it has on the card" in scribe.view().obstacle.told)
        id = stage.ask()
        assert not server.bodies
        stage.line.is_paused = False
        assert stage.result(id) == told("Once upon a time")
        assert not scribe.view().obstacle.told


def test_the_name_of_another_kind_of_worker_is_refused_with_the_key_to_change(
    stage: Stage,
) -> None:
    with KoboldServer() as server, Api(stage.sandbox.url, WORKER_KEY) as owner:
        assert owner.pop(name="a scribe").status_code == 200
        scribe = stage.serve(server.url)
        until(lambda: scribe.join(0))
        assert "choose another scribe_name" in scribe.view().obstacle.told
