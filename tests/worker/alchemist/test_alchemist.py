"""An alchemist against the local horde over HTTP: real results, and every form ends once."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from PIL import Image

from tests.support.sandbox_client import CLIENT_KEY, MODELS, WORKER_KEY, Api, Json, picture
from worker.alchemist.alchemist import Alchemist
from worker.alchemist.offer import OfferedForms, form_offer, offered_forms
from worker.alchemist.solving import Solving
from worker.children.forms import FormsPatience, FormsProcess
from worker.children.judge import JudgeProcess
from worker.children.messages import FormsSettings, JudgeSettings
from worker.config.keys import BridgeConfig
from worker.horde.client import HordeClient
from worker.horde.forms import Form
from worker.horde.kinds import Kind
from worker.horde.swagger import ServerWords
from worker.jobs.journal import Journal
from worker.jobs.ledger import FILE, Ledger
from worker.line.companion import Companion
from worker.line.gaps import Gaps
from worker.line.source_fetcher import SourceFetcher
from worker.safety.censorship import Censorship
from worker.safety.judging import Judging
from worker.sandbox import Endpoint, HandedOutAgain, LostReply, NamedTwice, Reply, Sandbox

LONG_SECONDS = 60.0


def bands() -> bytes:
    """Three quarters red, one quarter blue."""
    image = Image.new("RGB", (64, 64), "#ff0000")
    image.paste("#0000ff", (0, 48, 64, 64))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


class QuietLine:
    """No pictures are made, and the device is free."""

    is_ready, is_paused, in_hand = True, False, 0

    def __init__(self) -> None:
        self.gaps = Gaps(lambda: None, Event())


def config(**changes: object) -> BridgeConfig:
    told: dict[str, object] = {
        "api_key": WORKER_KEY,
        "dreamer_name": "a dreamer",
        "alchemist_name": "an alchemist",
        "forms": ["nsfw", "palette", "describe", "vectorize"],
    }
    return BridgeConfig.model_validate(told | changes)


class Stage:
    def __init__(self, folder: Path):
        self.folder = folder
        self.sandbox = Sandbox(MODELS)
        self.sandbox.start()
        self.client = Api(self.sandbox.url, CLIENT_KEY)
        self.alchemists: list[Companion[Form]] = []

    def alchemist(
        self, main: Callable[[Any, Any], None] | None = None, **changes: object
    ) -> Companion[Form]:
        horde = HordeClient(self.sandbox.url, WORKER_KEY, client_agent="test:1:x")
        horde.learn_words()
        judge = JudgeProcess(JudgeSettings(self.folder, False, self.folder / "judge.log"))
        patience = FormsPatience(heartbeat=3)
        settings = FormsSettings(self.folder / "forms.log")
        forms = FormsProcess(settings, patience, main) if main else FormsProcess(settings)
        own = config(**changes)
        alchemist = Alchemist(
            horde,
            offered_forms(own, self.folder),
            lambda offered, amount: form_offer(own, offered, amount),
            Solving(
                SourceFetcher(self.sandbox.url, client_agent="test:1:x"),
                forms,
                Judging(judge, Censorship(True, False, ())),
                self.folder,
            ),
        )
        journal = Journal(Ledger(self.folder / FILE), kind=Kind.form)
        self.alchemists.append(Companion(alchemist, horde, journal))
        return self.alchemists[-1]

    def serve(self, alchemist: Companion[Form]) -> None:
        alchemist.start(QuietLine())

    def ask(self, *names: str, file: bytes | None = None) -> str:
        source = base64.b64encode(file or bands()).decode()
        body: Json = {"source_image": source, "forms": [{"name": name} for name in names]}
        reply = self.client.call("POST", "interrogate/async", body)
        assert reply.status_code == 202, reply.text
        return reply.json()["id"]

    def results(self, id: str) -> dict[str, Any]:
        """By form, once all of them are done."""

        def is_done() -> bool:
            states = {form.state for form in self.sandbox.books().forms if form.request_id == id}
            return states <= {"done", "faulted"}

        until(is_done)
        forms = [form for form in self.sandbox.books().forms if form.request_id == id]
        return {form.form: (form.result or {}).get(form.form) for form in forms}

    def close(self) -> None:
        for alchemist in self.alchemists:
            alchemist.abandon()
            assert alchemist.join(LONG_SECONDS)
        self.client.http.close()
        self.sandbox.stop()


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + LONG_SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(tmp_path)
    try:
        yield stage
    finally:
        stage.close()


def test_each_form_gives_what_its_client_expects(stage: Stage) -> None:
    id = stage.ask("palette", "describe", "vectorize", "nsfw")
    stage.serve(stage.alchemist())
    results = stage.results(id)
    red, blue = results["palette"]["colors"][:2]
    assert red["proportion"] > 2 * blue["proportion"] > 0.3  # the horde's WebP blurs the edge
    assert int(red["hex"][1:3], 16) > 240
    assert int(blue["hex"][5:7], 16) > 240
    assert (results["describe"]["width"], results["describe"]["height"]) == (64, 64)
    assert len(results["describe"]["phash"]) == 16
    assert results["vectorize"].count("<path") >= 2
    assert results["nsfw"] is False
    entries = stage.sandbox.books().forms
    assert [len(form.holds) for form in entries] == [1] * 4
    assert all(form.holds[0].reward == 1 for form in entries)


def test_answers_that_are_lost_or_doubled_end_each_form_once(stage: Stage) -> None:
    faults = stage.sandbox.faults
    faults.inject(Endpoint.FORM_SUBMIT, LostReply(), calls=2)
    faults.inject(Endpoint.FORM_SUBMIT, Reply(500), calls=1)
    faults.inject(Endpoint.FORM_POP, NamedTwice(), calls=1)
    ids = [stage.ask("palette", "describe") for _ in range(3)]
    alchemist = stage.alchemist()
    stage.serve(alchemist)
    for id in ids:
        assert None not in stage.results(id).values()
    faults.inject(Endpoint.FORM_POP, HandedOutAgain(), calls=2)
    last = stage.ask("palette")
    assert stage.results(last)["palette"]
    until(lambda: not alchemist.view().waiting and not alchemist.view().running)
    for form in stage.sandbox.books().forms:
        assert [settling.rc for settling in form.holds[0].settlings].count("") == 1, form


@pytest.mark.parametrize(
    "file", [picture("GIF"), picture("PNG", "RGBA", (1, 700)), picture("PNG", size=(1, 1))]
)
def test_odd_pictures_have_results_too(stage: Stage, file: bytes) -> None:
    id = stage.ask("palette", "describe", "vectorize", file=file)
    stage.serve(stage.alchemist())
    assert None not in stage.results(id).values()


def test_a_picture_that_is_none_is_faulted_and_the_next_form_is_done(stage: Stage) -> None:
    bad = stage.ask("palette")
    stage.sandbox.horde.store.put("sources", f"{bad}.webp", b"RIFF....WEBPnonsense", "image/webp")
    alchemist = stage.alchemist()
    stage.serve(alchemist)
    until(lambda: any(form.state == "faulted" for form in stage.sandbox.books().forms))
    assert stage.results(stage.ask("palette"))["palette"]


def test_a_child_that_dies_costs_its_form_alone(stage: Stage) -> None:
    stage.ask("palette", "nsfw")
    stage.serve(stage.alchemist(dies_at_once))

    def has_faulted() -> bool:
        forms = {form.form: form for form in stage.sandbox.books().forms}
        return forms["nsfw"].state == "done" and forms["palette"].aborts > 0

    until(has_faulted)


def dies_at_once(pipe: Any, settings: Any) -> None:
    raise SystemExit(3)


def test_a_form_that_a_killed_life_has_left_is_done_by_the_next(stage: Stage) -> None:
    id = stage.ask("palette")
    horde = HordeClient(stage.sandbox.url, WORKER_KEY, client_agent="test:1:x")
    own = config()
    offered = OfferedForms(("palette",), (), {})
    (form,) = horde.pop_forms(form_offer(own, offered, 1)).tasks
    ledger = Ledger(stage.folder / FILE)
    Journal(ledger, kind=Kind.form).popped(form.slots, form.form, form.asked)
    ledger.close()
    assert Ledger(stage.folder / FILE).owed() == [], "no picture's journal sees it"
    stage.serve(stage.alchemist())
    assert stage.results(id)["palette"]["colors"]
    (entry,) = stage.sandbox.books().forms
    assert len(entry.holds) == 1
    horde.close()


def test_a_name_of_a_picture_worker_ends_the_alchemist_with_a_line(stage: Stage) -> None:
    with Api(stage.sandbox.url, WORKER_KEY) as owner:
        assert owner.pop(name="an alchemist").status_code == 200
    alchemist = stage.alchemist()
    stage.serve(alchemist)
    until(lambda: alchemist.join(0))
    assert "an alchemist" in alchemist.view().obstacle.told


def test_only_what_the_server_knows_and_the_device_has_time_for_is_offered(tmp_path: Path) -> None:
    offered = offered_forms(config(forms=[]), tmp_path)
    assert set(offered.forms) == {"nsfw", "palette", "describe", "vectorize", "annotation"}
    assert offered.missing["GFPGAN"] == "gfpgan/GFPGANv1.4.pth is missing in the models folder"
    assert "canny" in offered.annotation_types
    assert "hed" not in offered.annotation_types
    words = ServerWords(forms=frozenset({"nsfw", "annotation", "GFPGAN"}))
    assert offered.known_to(words, with_device=True).forms == ("nsfw", "annotation")
    assert offered.known_to(words, with_device=False).forms == ("nsfw",)
    assert offered.known_to(words, with_device=False).annotation_types == ()
    few = offered.known_to(words, with_device=False)
    assert "annotation_types" not in form_offer(config(), few, 1).body()
