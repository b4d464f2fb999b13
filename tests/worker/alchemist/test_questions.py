"""Captions, interrogations and scores by a whole worker: of clients' pictures and of its own."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from hordelib.alchemy.interrogation import word_lists
from hordelib.demo_model import ensure_checkpoint
from hordelib.job.images import Picture
from hordelib.job.notes import GenMetadata
from hordelib.job.questions import BLIP, CLIP, HEAD, Topic, file_of
from hordelib.safety.verdict import Verdict
from tests.support.owner import wait_for
from tests.support.sandbox_client import CLIENT_KEY, WORKER_KEY, Api, Json
from tests.support.tiny_readers import put_blip, put_clip, put_head
from worker.alchemist.offer import OfferedForms, offered_forms
from worker.children import judge_main
from worker.children.judge import JudgeProcess
from worker.children.messages import JudgeSettings
from worker.cli.check import alchemist
from worker.config.keys import BridgeConfig
from worker.demo.run import REFERENCE, demo_config
from worker.horde.api import slots_of
from worker.horde.kinds import Kind
from worker.jobs.journal import Journal
from worker.jobs.ledger import FILE, Ledger
from worker.jobs.results import Cleared, Made
from worker.models.inventory import ModelsFolder
from worker.models.opening import find_models
from worker.safety.censorship import Censorship
from worker.safety.judging import Judging
from worker.sandbox import Sandbox, State
from worker.service.assembly import make_bridge

LONG_SECONDS = 600.0


def red() -> str:
    file = io.BytesIO()
    Image.new("RGB", (128, 96), "red").save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


@pytest.mark.timeout(1800)  # it starts an engine, a judge and a worker, on a busy machine
def test_clients_have_their_answers_and_pictures_their_scores(tmp_path: Path) -> None:
    models = tmp_path / "models"
    ensure_checkpoint(models)
    for put in (put_blip, put_clip, put_head):
        put(models)
    changes = {
        "alchemist_name": "an alchemist",
        "forms": tuple(Topic),
        "aesthetic_score": True,
    }
    with Sandbox(models=REFERENCE) as sandbox, Api(sandbox.url, CLIENT_KEY) as client:

        def ask(*forms: str) -> str:
            body: Json = {"source_image": red(), "forms": [{"name": name} for name in forms]}
            return client.call("POST", "interrogate/async", body).json()["id"]

        def paint(n: int) -> None:
            asked = {"width": 64, "height": 64, "steps": 2, "n": n}
            client.ask(asked, models=["Dreamer Demo"])

        config = demo_config(sandbox.url).model_copy(update=changes)
        first = ask(*Topic)
        paint(2)
        ledger = Ledger(tmp_path / FILE)
        bridge = make_bridge(config, tmp_path, find_models(config, tmp_path), Journal(ledger))
        bridge.start()
        try:
            wait_for(
                lambda: (
                    all(form.state == "done" for form in sandbox.books().forms)
                    and len(sandbox.books().in_state(State.ok)) == 2
                ),
                LONG_SECONDS,
            )
            insist_on_answers(client.call("GET", f"interrogate/status/{first}").json())
            scores = [scores_of(image.gen_metadata) for image in sandbox.books().generations]
            assert all(len(each) == 1 and float(each[0]) for each in scores)

            file_of(models, HEAD).write_bytes(b"a web page")
            ask(Topic.aesthetic)
            wait_for(lambda: sandbox.books().forms[-1].aborts > 0, LONG_SECONDS)
            last = ask(Topic.caption)  # the broken file has cost its own form alone
            paint(1)
            wait_for(
                lambda: (
                    client.call("GET", f"interrogate/status/{last}").json()["state"] == "done"
                    and len(sandbox.books().in_state(State.ok)) == 3
                ),
                LONG_SECONDS,
            )
            assert scores_of(sandbox.books().generations[-1].gen_metadata) == []
            assert sandbox.books().forms[3].aborts == 1, "it was not asked for again"
        finally:
            bridge.stop()
            if not bridge.join(60):
                bridge.abandon()
            assert bridge.join(30)
            assert bridge.failure is None
        assert ledger.owed() == ledger.owed(Kind.form) == []
        ledger.close()


def insist_on_answers(status: Json) -> None:
    results = {form["form"]: form["result"][form["form"]] for form in status["forms"]}
    assert results["caption"].startswith("w"), "a word of the tiny vocabulary"
    assert set(results["interrogation"]) == set(word_lists())
    assert {len(best) for best in results["interrogation"].values()} == {5}
    assert isinstance(results["aesthetic"], float)


def scores_of(notes: tuple[Mapping[str, str], ...]) -> list[str]:
    return [note["ref"] for note in notes if note["type"] == "aesthetic_score"]


def own(tmp_path: Path, **changes: Any) -> BridgeConfig:
    told = {"api_key": WORKER_KEY, "dreamer_name": "a dreamer", "alchemist_name": "an alchemist"}
    return BridgeConfig.model_validate(told | changes)


def test_what_is_missing_is_told_with_its_size(tmp_path: Path) -> None:
    offered = offered_forms(own(tmp_path, forms=list(Topic)), tmp_path)
    assert offered.forms == ()
    assert offered.missing == {
        "caption": "blip-image-captioning-base.bin (990 MB), blip-vocabulary.txt (232 kB)",
        "interrogation": "ViT-L-14.pt (933 MB)",
        "aesthetic": "ViT-L-14.pt (933 MB), sac+logos+ava1-l14-linearMSE.pth (3.7 MB)",
    }
    put_clip(tmp_path)
    assert offered_forms(own(tmp_path, forms=list(Topic)), tmp_path).forms == ("interrogation",)


def test_check_tells_of_scores_that_can_not_be_and_of_files_that_are_others(
    tmp_path: Path,
) -> None:
    put_clip(tmp_path / "models")
    config = own(tmp_path, aesthetic_score=True)
    told = [str(each) for each in alchemist(config, ModelsFolder.of(config, tmp_path))]
    (scores,) = (each for each in told if "pictures are not scored" in each)
    assert "linearMSE.pth (3.7 MB)" in scores
    assert "models add alchemist" in scores
    (missing,) = (each for each in told if "not offered (" in each)
    assert f"caption lacks {BLIP.file} (990 MB)" in missing
    assert "RealESRGAN_x4plus lacks esrgan/RealESRGAN_x4plus.pth" in missing
    assert "annotation lacks the annotators of " in missing
    assert any("nsfw, describe, palette, vectorize, annotation" in each for each in told)
    assert any(CLIP.file in each and "another file" in each for each in told)


def test_a_form_or_a_type_that_failed_for_its_file_is_left_out() -> None:
    offered = OfferedForms(("caption", "annotation"), ("canny", "hed"), {})  # pyright: ignore
    assert offered.without("caption", "").forms == ("annotation",)
    fewer = offered.without("annotation", "hed")
    assert (fewer.forms, fewer.annotation_types) == (("caption", "annotation"), ("canny",))
    assert fewer.without("annotation", "canny").forms == ("caption",)


class AlwaysNsfw:
    name = "always"

    def judge(self, picture: Picture, prompt: str) -> Verdict:
        return Verdict(nsfw=True)


def finds_all_nsfw(pipe: Any, settings: Any) -> None:
    judge_main.main(pipe, settings, lambda _: AlwaysNsfw())


def test_a_censored_picture_keeps_its_score_to_itself(tmp_path: Path) -> None:
    judge = JudgeProcess(
        JudgeSettings(tmp_path, False, tmp_path / "judge.log"), main=finds_all_nsfw
    )
    score = GenMetadata.aesthetic_score(5.2549)
    assert score.body() == {"type": "aesthetic_score", "value": "see_ref", "ref": "5.25"}
    file = io.BytesIO()
    Image.new("RGB", (64, 64)).save(file, "WEBP")
    made = Made(slots_of(("id",), ("",), 0.0)[0], 1, file.getvalue(), "", notes=(score,))
    for censors, type in ((False, "aesthetic_score"), (True, "censorship")):
        judged = Judging(judge, partial(Censorship, censor_nsfw=censors)).judge(made)
        assert isinstance(judged, Cleared)
        assert [each.type for each in judged.notes] == [type]
    judge.stop()
