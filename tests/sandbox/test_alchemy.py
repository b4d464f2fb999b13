"""The local horde hands out forms, pays for them and refuses as the server was seen to do."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator

import pytest
import requests

from tests.support.sandbox_client import (
    CLIENT_KEY,
    MODELS,
    WORKER_KEY,
    Api,
    Json,
    MovableClock,
    assert_invalid,
    assert_refused,
    picture,
)
from worker.sandbox import Endpoint, LostReply, Sandbox
from worker.sandbox.kinds.alchemy import reward
from worker.sandbox.kinds.alchemy_records import tiles_of
from worker.sandbox.rules.capabilities import GATE_OF_5_1_5

ALL = ["caption", "nsfw", "palette", "GFPGAN", "RealESRGAN_x4plus"]


class Horde:
    def __init__(self) -> None:
        self.clock = MovableClock()
        self.sandbox = Sandbox(MODELS, clock=self.clock)
        self.sandbox.start()
        self.client = Api(self.sandbox.url, CLIENT_KEY)
        self.owner = Api(self.sandbox.url, WORKER_KEY)

    def ask(self, *names: str, size: tuple[int, int] = (64, 64), **changes: object) -> str:
        forms = changes.pop("forms", [{"name": name} for name in names])
        body = {"source_image": b64encode(picture(size=size)).decode(), "forms": forms}
        reply = self.client.call("POST", "interrogate/async", body | changes)
        assert reply.status_code == 202, reply.text
        return reply.json()["id"]

    def pop(self, **changes: object) -> requests.Response:
        body: Json = {"name": "an alchemist", "forms": ALL, "amount": 10}
        return self.owner.call("POST", "interrogate/pop", body | changes)

    def forms(self, **changes: object) -> list[Json]:
        reply = self.pop(**changes)
        assert reply.status_code == 200, reply.text
        return reply.json()["forms"] or []

    def submit(self, id: str, result: object, state: str = "ok") -> requests.Response:
        body = {"id": id, "result": result, "state": state}
        return self.owner.call("POST", "interrogate/submit", body)

    def status(self, id: str) -> Json:
        return self.client.call("GET", f"interrogate/status/{id}").json()


@pytest.fixture
def horde() -> Iterator[Horde]:
    horde = Horde()
    try:
        yield horde
    finally:
        horde.client.http.close()
        horde.owner.http.close()
        horde.sandbox.stop()


def test_forms_of_a_picture_come_separately_and_are_paid_by_form_and_tiles(horde: Horde) -> None:
    id = horde.ask("caption", "RealESRGAN_x4plus", size=(513, 512))
    caption, upscaler = sorted(horde.forms(), key=lambda form: form["form"], reverse=True)
    assert caption["source_image"] == upscaler["source_image"]
    assert "r2_upload" not in caption
    assert requests.get(caption["source_image"], timeout=120).content[8:12] == b"WEBP"
    assert requests.put(upscaler["r2_upload"], b"result", timeout=120).ok
    assert horde.submit(caption["id"], {"caption": "red"}).json() == {"reward": 1.0}
    assert horde.status(id)["state"] == "partial"
    assert horde.submit(upscaler["id"], {"RealESRGAN_x4plus": "R2"}).json() == {"reward": 6.0}
    done = horde.status(id)
    assert done["state"] == "done"
    results = {form["form"]: form["result"][form["form"]] for form in done["forms"]}
    assert results["caption"] == "red"
    assert requests.get(results["RealESRGAN_x4plus"], timeout=120).content == b"result"
    assert len(horde.sandbox.books().forms) == 2


def test_one_form_comes_where_no_amount_is_named_and_none_where_there_is_none(horde: Horde) -> None:
    horde.ask("caption", "nsfw", "nsfw")
    assert len(horde.forms(amount=1)) == 1
    assert len(horde.forms(amount=0)) == 0
    assert horde.pop(forms=[]).json() == {"forms": None, "skipped": {}}
    assert len(horde.forms()) == 1, "a form that is asked for twice is one"


def test_an_unknown_form_refuses_the_whole_pop(horde: Horde) -> None:
    assert_invalid(horde.pop(forms=["caption", "no such form"]), "forms.1")
    assert_invalid(horde.pop(max_tiles=300), "max_tiles")
    assert_invalid(horde.pop(threads=101), "threads")


def test_annotation_goes_to_those_alone_that_name_its_type(horde: Horde) -> None:
    horde.ask(forms=[{"name": "annotation", "payload": {"control_type": "canny"}}])
    offer = {"forms": ["annotation"]}
    assert horde.forms(**offer) == []
    assert horde.forms(**offer, annotation_types=["hed"]) == []
    (form,) = horde.forms(**offer, annotation_types=["canny", "hed"])
    assert form["payload"] == {"control_type": "canny"}
    assert form["r2_upload"]


def test_only_the_newest_server_lists_annotation(horde: Horde) -> None:
    def words() -> Json:
        url = f"{horde.sandbox.url}/api/swagger.json"
        return requests.get(url, timeout=120).json()["definitions"]

    def forms(definitions: Json) -> list[str]:
        return definitions["ModelInterrogationFormStable"]["properties"]["name"]["enum"]

    assert "annotation" in forms(words())
    horde.sandbox.horde.set_newest_gate(GATE_OF_5_1_5)
    assert "annotation" not in forms(words())


def test_more_tiles_than_an_alchemist_takes_are_not_handed_out(horde: Horde) -> None:
    horde.ask("caption", size=(513, 513))
    assert horde.forms(max_tiles=3) == []
    horde.clock.move(1)
    assert len(horde.forms(max_tiles=4)) == 1


def test_a_faulted_form_comes_again_and_the_fourth_fault_ends_it(horde: Horde) -> None:
    id = horde.ask("caption")
    for state in ("waiting", "waiting", "waiting", "faulted"):
        (form,) = horde.forms()
        assert horde.submit(form["id"], {}, "faulted").json() == {"reward": 0.0}
        assert horde.status(id)["state"] == state
    assert horde.forms() == []


def test_a_form_that_takes_more_than_three_minutes_is_put_back(horde: Horde) -> None:
    id = horde.ask("caption")
    (form,) = horde.forms()
    horde.clock.move(179)
    horde.sandbox.clean()
    assert horde.status(id)["state"] == "processing"
    horde.clock.move(2)
    horde.sandbox.clean()
    assert horde.status(id)["state"] == "waiting"
    assert_refused(horde.submit(form["id"], {"caption": "late"}), 400, "DuplicateGen")


def test_submits_are_refused_as_the_server_does(horde: Horde) -> None:
    horde.ask("caption")
    (form,) = horde.forms()
    assert_refused(horde.submit("nobody's", {}), 404, "InvalidJobID")
    assert_invalid(horde.submit(form["id"], "a string"), "result")
    assert horde.submit(form["id"], None).status_code == 500
    stranger = Api(horde.sandbox.url, CLIENT_KEY)
    body: Json = {"id": form["id"], "result": {}, "state": "ok"}
    assert_refused(stranger.call("POST", "interrogate/submit", body), 403, "WrongCredentials")
    stranger.http.close()
    assert horde.submit(form["id"], {}).json() == {"reward": 1.0}
    assert_refused(horde.submit(form["id"], {}), 400, "DuplicateGen")


def test_a_name_is_of_one_kind_of_worker(horde: Horde) -> None:
    assert horde.owner.pop(name="a dreamer").status_code == 200
    assert_refused(horde.pop(name="a dreamer"), 400, "PolymorphicNameConflict")
    horde.forms()
    assert_refused(horde.owner.pop(name="an alchemist"), 400, "PolymorphicNameConflict")
    page = horde.owner.call("GET", "workers/name/an alchemist").json()
    assert (page["type"], page["owner"]) == ("interrogation", "owner#1")
    assert "owner" not in horde.client.call("GET", "workers/name/an alchemist").json()


def test_in_maintenance_only_the_owners_own_forms_come(horde: Horde) -> None:
    horde.ask("caption")
    horde.pop(forms=[])
    horde.sandbox.set_maintenance("an alchemist", True, "resting")
    assert_refused(horde.pop(), 403, "WorkerMaintenance")


def test_a_cancelled_form_is_paid_and_its_result_not_taken(horde: Horde) -> None:
    id = horde.ask("caption", "nsfw")
    (form,) = horde.forms(amount=1)
    reply = horde.client.call("DELETE", f"interrogate/status/{id}").json()
    assert {each["state"] for each in reply["forms"]} == {"cancelled"}
    assert_refused(horde.submit(form["id"], {}), 400, "DuplicateGen")
    assert horde.owner.call("GET", "workers/name/an alchemist").json()["kudos_rewards"] == 1.0


def test_the_books_know_of_a_pop_whose_answer_was_lost(horde: Horde) -> None:
    horde.ask("caption")
    horde.sandbox.faults.inject(Endpoint.FORM_POP, LostReply(), calls=1)
    with pytest.raises(requests.ConnectionError):
        horde.pop()
    (entry,) = horde.sandbox.books().forms
    assert [hold.unheard for hold in entry.holds] == [True]


def test_pictures_of_more_than_255_tiles_are_refused(horde: Horde) -> None:
    source = b64encode(picture(size=(16 * 512, 15 * 512 + 1))).decode()
    body = {"source_image": source, "forms": [{"name": "caption"}]}
    reply = horde.client.call("POST", "interrogate/async", body)
    assert_refused(reply, 400, "SourceImageResolutionExceeded")


def test_rewards_are_those_that_were_seen() -> None:
    sides = {64: 3, 512: 3, 513: 12, 1024: 12, 1025: 27, 2048: 48}
    assert {side: reward("GFPGAN", tiles_of(side, side)) for side in sides} == sides
    assert reward("interrogation", 4) == 3
    assert reward("palette", 4) == 1
