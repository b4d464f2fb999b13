"""The suite's own judgement: what it counts against a worker, and what in its favour."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import pytest

from tests.chaos.verdict import (
    AFTER_KILL_SECONDS,
    BEFORE_KILL_SECONDS,
    Fate,
    Held,
    Kill,
    Kills,
    doubled,
    fates,
    held_of,
    judge,
)
from tests.support.sandbox_client import (
    CLIENT_KEY,
    MODELS,
    WORKER_KEY,
    Api,
    Json,
    MovableClock,
    picture,
)
from worker.sandbox import CutShort, GenerationEntry, RequestEntry, Sandbox, Timing

TTL, FORM_SECONDS = 30, 180


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


@pytest.fixture
def sandbox(clock: MovableClock) -> Iterator[Sandbox]:
    timing = Timing(min_ttl_seconds=TTL, cleaner_seconds=1)
    with Sandbox(MODELS, clock=clock, timing=timing) as running:
        yield running


@pytest.fixture
def worker(sandbox: Sandbox) -> Iterator[Api]:
    with Api(sandbox.url, CLIENT_KEY) as client, Api(sandbox.url, WORKER_KEY) as worker:
        for _ in range(3):
            client.ask_id({"n": 2, "width": 64, "height": 64, "steps": 1})
        yield worker


def held(sandbox: Sandbox, key: str) -> Held:
    return next(each for each in held_of(sandbox.books()) if each.key == key)


def fate_of(sandbox: Sandbox, id: str, *kills: Kill) -> Fate:
    return fates(sandbox.books(), kills)[id]


@pytest.mark.parametrize(
    ("states", "fate"),
    [(["ok"], Fate.submitted), (["faulted"], Fate.faulted), (["faulted", "ok"], Fate.faulted)],
)
def test_an_image_that_the_worker_has_ended_is_not_lost(
    sandbox: Sandbox, worker: Api, states: list[str], fate: Fate
):
    id = worker.pop_job()["id"]
    for state in states:
        worker.submit(id, state=state)
    assert fate_of(sandbox, id) is fate


def test_an_image_nobody_speaks_of_is_lost(sandbox: Sandbox, worker: Api, clock: MovableClock):
    id = worker.pop_job()["id"]
    assert fate_of(sandbox, id) is Fate.lost
    clock.move(2 * TTL)
    assert fate_of(sandbox, id) is Fate.lost


def test_an_image_that_came_too_late_was_given_up(
    sandbox: Sandbox, worker: Api, clock: MovableClock
):
    id = worker.pop_job()["id"]
    clock.move(2 * TTL)
    worker.submit(id)
    assert fate_of(sandbox, id) is Fate.given_up


def test_an_image_whose_time_ended_while_the_horde_was_away_was_given_up(
    sandbox: Sandbox, worker: Api, clock: MovableClock
):
    id = worker.pop_job()["id"]
    clock.move(TTL - 1)
    sandbox.stop()
    clock.move(2)
    sandbox.start()
    sandbox.clean()
    assert fate_of(sandbox, id) is Fate.given_up


def test_an_image_whose_time_ended_after_the_horde_was_back_is_lost(
    sandbox: Sandbox, worker: Api, clock: MovableClock
):
    id = worker.pop_job()["id"]
    sandbox.stop()
    clock.move(2)
    sandbox.start()
    clock.move(TTL)
    sandbox.clean()
    assert fate_of(sandbox, id) is Fate.lost


def test_an_image_whose_pop_was_cut_off_is_not_known_to_the_worker(sandbox: Sandbox, worker: Api):
    sandbox.faults.inject("pop", CutShort(), calls=1)
    with pytest.raises(OSError, match="IncompleteRead"):
        worker.pop()
    (row,) = sandbox.books().generations
    assert fate_of(sandbox, row.id) is Fate.unheard


def test_a_kill_excuses_the_last_pop_about_it_and_no_other(
    sandbox: Sandbox, worker: Api, clock: MovableClock
):
    before = worker.pop_job()["id"]
    clock.move(0.5)
    killed_at = clock.now
    clock.move(AFTER_KILL_SECONDS / 2)  # the horde was slow to hear what the dead worker had said
    last = worker.pop_job(amount=2)["ids"]
    clock.move(AFTER_KILL_SECONDS)
    after = worker.pop_job()["id"]
    found = fates(sandbox.books(), [Kill(killed_at)])
    assert found == dict.fromkeys((before, after), Fate.lost) | dict.fromkeys(last, Fate.at_kill)


def test_a_kill_excuses_nothing_that_the_ledger_had(sandbox: Sandbox, worker: Api):
    id = worker.pop_job()["id"]
    killed_at = sandbox.books().generation(id).popped_at
    assert fate_of(sandbox, id, Kill(killed_at)) is Fate.at_kill
    assert fate_of(sandbox, id, Kill(killed_at, frozenset({id}))) is Fate.lost


def test_a_kill_excuses_all_that_was_known_in_memory_alone(
    sandbox: Sandbox, worker: Api, clock: MovableClock
):
    first = worker.pop_job()["id"]
    clock.move(0.5)
    last = worker.pop_job()["id"]
    found = fates(sandbox.books(), [Kill(clock.now, in_memory=True)])
    assert found == dict.fromkeys((first, last), Fate.at_kill)
    assert fate_of(sandbox, first, Kill(clock.now, frozenset({first}), in_memory=True)) is Fate.lost


def test_a_kill_long_after_a_pop_excuses_nothing(
    sandbox: Sandbox, worker: Api, clock: MovableClock
):
    id = worker.pop_job()["id"]
    clock.move(BEFORE_KILL_SECONDS + 0.5)
    assert fate_of(sandbox, id, Kill(clock.now)) is Fate.lost


@pytest.mark.parametrize(("in_memory", "complaints"), [(True, 0), (False, 1)])
def test_another_word_after_a_kill_is_excused_where_memory_alone_had_the_first(
    sandbox: Sandbox, worker: Api, clock: MovableClock, in_memory: bool, complaints: int
):
    id = worker.pop_job()["id"]
    worker.submit(id, state="faulted")
    clock.move(1)
    kill = Kill(clock.now, in_memory=in_memory)
    clock.move(1)
    worker.submit(id, state="ok")
    assert len(list(doubled(held(sandbox, id), [kill]))) == complaints


@pytest.mark.parametrize(
    ("states", "complaints"),
    [
        (["ok", "ok"], 0),
        (["faulted", "faulted"], 0),
        (["ok", "faulted"], 1),
        (["faulted", "ok"], 1),
    ],
)
def test_two_outcomes_of_one_image_are_one_too_many(
    sandbox: Sandbox, worker: Api, states: list[str], complaints: int
):
    id = worker.pop_job()["id"]
    for state in states:
        worker.submit(id, state=state)
    assert len(list(doubled(held(sandbox, id)))) == complaints


@pytest.mark.parametrize(("uploads", "complaints"), [("aa", 0), ("ab", 1)])
def test_two_pictures_of_one_image_are_one_too_many(
    sandbox: Sandbox, worker: Api, uploads: str, complaints: int
):
    job = worker.pop_job()
    for upload in uploads:
        worker.http.put(job["r2_upload"], data=upload.encode(), timeout=120)
    assert len(list(doubled(held(sandbox, job["id"])))) == complaints


def test_each_wrong_picture_is_counted_and_named(sandbox: Sandbox, worker: Api):
    right, wrong = worker.pop_job()["id"], worker.pop_job()["id"]
    for id in (right, wrong):
        worker.submit(id)

    def complaint(row: GenerationEntry, request: RequestEntry) -> str:
        assert request.id == row.request_id
        return "blurry" if row.id == wrong else ""

    judgement = judge(sandbox.books(), Kills(), complaint)
    assert [str(each) for each in judgement.wrongs(sandbox.books())] == [f"{wrong}: blurry"]
    assert "2 submitted" in judgement.table()


def test_recovery_is_the_longest_wait_from_a_kill_to_a_sign_of_life(
    sandbox: Sandbox, worker: Api, clock: MovableClock
):
    start = clock.now
    id = worker.pop_job()["id"]
    clock.move(10)
    worker.submit(id)
    clock.move(10)
    worker.pop_job()
    kills = Kills(worker=[Kill(start + 4), Kill(start + 19)], children=[start + 3, start + 25])
    judgement = judge(sandbox.books(), kills, lambda _row, _request: "")
    assert judgement.recovery_seconds == pytest.approx(7)


def test_each_handing_out_of_a_form_has_a_fate_of_its_own(
    sandbox: Sandbox, worker: Api, clock: MovableClock
):
    source = base64.b64encode(picture()).decode()
    body: Json = {"source_image": source, "forms": [{"name": "palette"}]}
    with Api(sandbox.url, CLIENT_KEY) as client:
        client.call("POST", "interrogate/async", body)
    offer: Json = {"name": "an alchemist", "forms": ["palette"]}

    def pop() -> str:
        return worker.call("POST", "interrogate/pop", offer).json()["forms"][0]["id"]

    def submit(state: str) -> int:
        body: Json = {"id": id, "result": {}, "state": state}
        return worker.call("POST", "interrogate/submit", body).status_code

    id = pop()
    assert submit("faulted") == 200
    assert submit("ok") == 400  # nobody has it
    assert pop() == id
    clock.move(FORM_SECONDS + 2)
    assert pop() == id
    assert submit("ok") == 200
    found = fates(sandbox.books(), [])
    wanted = (Fate.faulted, Fate.lost, Fate.submitted)
    assert found == {f"{id}, time {number}": fate for number, fate in enumerate(wanted, 1)}
    for form in held_of(sandbox.books()):
        assert list(doubled(form)) == []
    judgement = judge(sandbox.books(), Kills(), lambda _row, _request: "", lambda _form: "red")
    assert {str(each).partition(": ")[2] for each in judgement.wrongs(sandbox.books())} == {
        f"lost: form aborted, popped at {clock.now - FORM_SECONDS - 2:.2f}",
        "red",
    }


def test_a_text_has_one_fate_and_its_words_are_judged(
    sandbox: Sandbox, worker: Api, clock: MovableClock
):
    with Api(sandbox.url, CLIENT_KEY) as client:
        asked: Json = {"prompt": "x", "params": {"n": 3}, "validated_backends": False}
        assert client.call("POST", "generate/text/async", asked).ok
    pop: Json = {"name": "a scribe", "models": ["mine"], "amount": 3}
    done, failed, forgotten = worker.call("POST", "generate/text/pop", pop).json()["ids"]
    for id, state in ((done, "ok"), (failed, "faulted")):
        body: Json = {"id": id, "generation": "a text", "state": state}
        assert worker.call("POST", "generate/text/submit", body).ok
    assert [fate_of(sandbox, id) for id in (done, failed)] == [Fate.submitted, Fate.faulted]
    assert fate_of(sandbox, forgotten) is Fate.lost
    kill = Kill(clock.now + 0.5)
    assert fate_of(sandbox, forgotten, kill) is Fate.at_kill
    judgement = judge(
        sandbox.books(), Kills(), lambda row, request: "", of_text=lambda text: text.text
    )
    assert [str(wrong) for wrong in judgement.wrong_results] == [f"{done}: a text"]
