"""An alchemist against the local horde over HTTP: real results, and every form ends once."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from PIL import Image

from hordelib.job.image_files import MAX_BYTES
from tests.support.owner import wait_for
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
from worker.jobs.drop_limit import MOST_DROPS
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
    seconds_ahead = 0.0

    def __init__(self) -> None:
        self.gaps = Gaps(lambda: None, Event(), tuple)


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
        self,
        main: Callable[[Any, Any], None] | None = None,
        most_drops: int = MOST_DROPS,
        **changes: object,
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
                Judging(judge, Censorship),
                self.folder,
            ),
        )
        journal = Journal(Ledger(self.folder / FILE), most_drops, kind=Kind.form)
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

    def owed(self, name: str, told: str) -> str:
        """The id of a form that a life has popped and left, as one that the horde calls `told`."""
        horde = HordeClient(self.sandbox.url, WORKER_KEY, client_agent="test:1:x")
        offered = OfferedForms((name,), (), {})
        (popped,) = horde.pop_forms(form_offer(config(), offered, 1)).tasks
        horde.close()
        form = replace(popped, form=told)
        ledger = Ledger(self.folder / FILE)
        Journal(ledger, kind=Kind.form).popped(form.slots, form.form, form.asked)
        ledger.close()
        return form.id

    def results(self, id: str) -> dict[str, Any]:
        """By form, once all of them are done."""

        def is_done() -> bool:
            states = {form.state for form in self.sandbox.books().forms if form.request_id == id}
            return states <= {"done", "faulted"}

        wait_for(is_done)
        forms = [form for form in self.sandbox.books().forms if form.request_id == id]
        return {form.form: (form.result or {}).get(form.form) for form in forms}

    def close(self) -> None:
        for alchemist in self.alchemists:
            alchemist.abandon()
            assert alchemist.join(LONG_SECONDS)
        self.client.http.close()
        self.sandbox.stop()


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
    wait_for(lambda: not alchemist.view().waiting and not alchemist.view().running)
    for form in stage.sandbox.books().forms:
        assert [settling.rc for settling in form.holds[0].settlings].count("") == 1, form


@pytest.mark.parametrize(
    "file", [picture("GIF"), picture("PNG", "RGBA", (1, 700)), picture("PNG", size=(1, 1))]
)
def test_odd_pictures_have_results_too(stage: Stage, file: bytes) -> None:
    id = stage.ask("palette", "describe", "vectorize", file=file)
    stage.serve(stage.alchemist())
    assert None not in stage.results(id).values()


def animation() -> bytes:
    """Red, then blue twice."""
    first, *others = [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue", "#0000fe")]
    file = io.BytesIO()
    first.save(file, "WEBP", save_all=True, append_images=others, lossless=True)
    return file.getvalue()


def empty_png(width: int, height: int) -> bytes:
    """So many pixels by its header, and a few bytes of a line."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


BAD_PICTURES = {
    "no picture": (b"RIFF....WEBPnonsense", "source_image"),
    "a page": (b"<html><body>Not found</body></html>", "expected a PNG, JPEG, WEBP"),
    "cut off": (animation()[:-40], "source_image"),
    "255 tiles": (empty_png(15 * 512, 17 * 512), "7680x8704"),
    "a bomb": (empty_png(60_000, 60_000), "60000x60000"),
    "too long": (picture() + bytes(MAX_BYTES), f"more than {MAX_BYTES} bytes"),
}


def test_bad_pictures_and_unknown_forms_are_faulted_with_a_reason_and_the_next_is_done(
    stage: Stage,
) -> None:
    store = stage.sandbox.horde.store
    stage.ask("describe")
    strange = stage.owed("describe", "a form that nobody knows")
    bad = {name: stage.ask("palette") for name in BAD_PICTURES}
    for name, id in bad.items():
        store.put("sources", f"{id}.webp", BAD_PICTURES[name][0], "image/webp")
    moving = stage.ask("palette")
    store.put("sources", f"{moving}.webp", animation(), "image/webp")
    alchemist = stage.alchemist(most_drops=1000)
    stage.serve(alchemist)

    def have_faulted() -> bool:
        aborts = {form.id: form.aborts for form in stage.sandbox.books().forms}
        return aborts[strange] > 0 and sum(count > 0 for count in aborts.values()) > len(bad)

    wait_for(have_faulted)
    assert stage.results(moving)["palette"]["colors"] == [{"hex": "#ff0000", "proportion": 1.0}]
    assert stage.results(stage.ask("describe"))["describe"]["width"] == 64
    forms = {form.id: form.request_id for form in stage.sandbox.books().forms}
    told = {forms[row.job_id]: row.reason for row in alchemist.view().rows if row.reason}
    for name, id in bad.items():
        assert BAD_PICTURES[name][1] in told[id], name
    reasons = [row.reason for row in alchemist.view().rows if row.job_id == strange]
    assert "'a form that nobody knows' is not offered" in reasons[0]


def test_no_picture_is_asked_for_that_is_larger_than_what_can_be_read() -> None:
    offered = OfferedForms(("palette",), (), {})
    assert form_offer(config(max_tiles=256), offered, 1).max_tiles == 64
    assert form_offer(config(max_tiles=3), offered, 1).max_tiles == 3


def test_a_child_that_dies_costs_its_form_alone(stage: Stage) -> None:
    stage.ask("palette", "nsfw")
    stage.serve(stage.alchemist(dies_at_once))

    def has_faulted() -> bool:
        forms = {form.form: form for form in stage.sandbox.books().forms}
        return forms["nsfw"].state == "done" and forms["palette"].aborts > 0

    wait_for(has_faulted)


def dies_at_once(pipe: Any, settings: Any) -> None:
    raise SystemExit(3)


def test_a_form_that_a_killed_life_has_left_is_done_by_the_next(stage: Stage) -> None:
    id = stage.ask("palette")
    assert stage.owed("palette", "palette")
    assert Ledger(stage.folder / FILE).owed() == [], "no picture's journal sees it"
    stage.serve(stage.alchemist())
    assert stage.results(id)["palette"]["colors"]
    (entry,) = stage.sandbox.books().forms
    assert len(entry.holds) == 1


def test_a_name_of_a_picture_worker_ends_the_alchemist_with_a_line(stage: Stage) -> None:
    with Api(stage.sandbox.url, WORKER_KEY) as owner:
        assert owner.pop(name="an alchemist").status_code == 200
    alchemist = stage.alchemist()
    stage.serve(alchemist)
    wait_for(lambda: alchemist.join(0))
    assert "an alchemist" in alchemist.view().obstacle.told


def test_only_what_the_server_knows_and_the_device_has_time_for_is_offered(tmp_path: Path) -> None:
    offered = offered_forms(config(forms=[]), tmp_path)
    assert set(offered.forms) == {"nsfw", "palette", "describe", "vectorize", "annotation"}
    assert offered.missing["GFPGAN"] == "gfpgan/GFPGANv1.4.pth"
    assert "canny" in offered.annotation_types
    assert "hed" not in offered.annotation_types
    words = ServerWords(forms=frozenset({"nsfw", "annotation", "GFPGAN"}))
    assert offered.known_to(words, with_device=True).forms == ("nsfw", "annotation")
    assert offered.known_to(words, with_device=False).forms == ("nsfw",)
    assert offered.known_to(words, with_device=False).annotation_types == ()
    few = offered.known_to(words, with_device=False)
    assert "annotation_types" not in form_offer(config(), few, 1).body()
