"""From a popped job to work: what is fetched, what is left out and said so, and what is refused."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from hordelib.errors import BadSource, InvalidParams, JobError, ModelMissing, NotServed
from hordelib.files.model import INPAINTING, Model
from hordelib.job.control_types import ControlType, control_net_file
from hordelib.job.families import SD1, SD2
from hordelib.job.params import FromImage, Inpaint, Lora, TextOnly, Transparency
from tests.hordelib.job.test_payload import PAYLOAD
from worker.clock import elapsed_seconds
from worker.config.keys import BridgeConfig
from worker.horde.api import ExtraSource, Job
from worker.jobs.work import Work
from worker.line.intake import Intake
from worker.line.source_fetcher import SourceFetcher, TryLater
from worker.models.offer import offer_maker
from worker.models.offered import OfferedModels
from worker.safety.censorship import asks_for
from worker.service.assembly import make_adapters

NOBODY = "http://127.0.0.1:9"  # the discard port: nobody listens there
TakeIn = Callable[..., Work]


def model(name: str, **changes: Any) -> Model:
    values: dict[str, Any] = {"family": SD1, "files": {"checkpoint": Path(f"{name}.safetensors")}}
    return Model(name, **values | changes)


MODELS = {
    "Deliberate": model("Deliberate"),
    "Painter": model("Painter", channels=INPAINTING),
    "Old": model("Old", family=SD2),
}


def job(payload: dict[str, Any] | None = None, **changes: Any) -> Job:
    values: dict[str, Any] = {
        "ids": ("a", "b"),
        "model": "Deliberate",
        "payload": PAYLOAD | (payload or {}),
        "ttl_seconds": 150,
        "upload_urls": ("http://one", "http://two"),
        "popped_at": elapsed_seconds(),
    }
    return Job(**values | changes)


def base64_png(mode: str = "RGB", size: tuple[int, int] = (64, 64), colour: Any = "red") -> str:
    file = io.BytesIO()
    Image.new(mode, size, colour).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The models of an owner, who has nothing but a ControlNet for canny."""
    control_net = control_net_file(tmp_path, ControlType.canny)
    control_net.parent.mkdir(parents=True)
    control_net.touch()
    return tmp_path


@pytest.fixture
def intake(folder: Path) -> Intake:
    config = BridgeConfig.model_validate(
        {"api_key": "a-key", "dreamer_name": "tester", "cache_home": str(folder)}
    )
    return Intake(
        OfferedModels(offer_maker(config, folder), MODELS),
        folder,
        SourceFetcher(NOBODY, client_agent="tester"),
        make_adapters(config, folder, (NOBODY,)),
    )


def bodies(work: Work) -> list[dict[str, str]]:
    return [note.body() for note in work.notes]


def test_there_are_as_many_images_as_ids_whatever_the_payload_says(intake: Intake):
    assert intake.take_in(job({"n_iter": 7})).params.images == 2


def test_a_model_that_is_not_offered_is_refused(intake: Intake):
    with pytest.raises(JobError, match="'Anything'"):
        intake.take_in(job(model="Anything"))


def test_a_model_that_arrives_is_offered_with_what_all_of_them_can_do(intake: Intake):
    intake.offered.add(model("New"))
    assert intake.offered.offer().models == ("Deliberate", "Painter", "Old", "New")
    assert intake.take_in(job(model="New")).model.name == "New"


def test_a_resting_model_is_not_offered_and_its_jobs_are_still_done(intake: Intake):
    intake.offered.rest("Deliberate")
    assert intake.offered.offer().models == ("Painter", "Old")
    assert intake.take_in(job()).model.name == "Deliberate"
    intake.offered.add(model("Deliberate"))
    assert "Deliberate" in intake.offered.offer().models


def test_the_last_model_on_offer_does_not_rest(intake: Intake):
    for name in ("Deliberate", "Painter", "Old"):
        intake.offered.rest(name)
    assert intake.offered.offer().models == ("Old",)
    assert intake.offered.withdraw("Old", "it is broken")
    assert set(intake.offered.offer().models) == {"Deliberate", "Painter"}


def test_a_withdrawn_model_leaves_the_offer(intake: Intake):
    assert intake.offered.withdraw("Deliberate", "it is broken")
    assert intake.offered.offer().models == ("Painter", "Old")
    with pytest.raises(JobError, match="'Deliberate'"):
        intake.take_in(job())
    intake.offered.withdraw("Painter", "it is broken")
    assert not intake.offered.withdraw("Old", "it is broken")


def test_a_source_image_is_what_the_picture_starts_from(intake: Intake):
    work = intake.take_in(job({"denoising_strength": 0.4}, source_image=base64_png()))
    assert isinstance(work.params.source, FromImage)
    assert (work.params.source.image.width, work.params.denoise) == (64, 0.4)


def test_a_mask_makes_it_a_repainting(intake: Intake):
    asked = job(
        source_image=base64_png(),
        source_mask=base64_png("L", (32, 32), 255),
        source_processing="inpainting",
    )
    source = intake.take_in(asked).params.source
    assert isinstance(source, Inpaint)
    assert set(source.mask.pixels) == {255}


def test_an_inpainting_model_gets_something_to_repaint_whatever_the_job_brings(intake: Intake):
    work = intake.take_in(job(model="Painter"))
    assert isinstance(work.params.source, Inpaint)
    assert bodies(work)[0]["type"] == "source_image"


@pytest.mark.parametrize("source", ["no base64 at all", base64.b64encode(b"a text").decode()])
@pytest.mark.parametrize("processing", ["img2img", "inpainting", "remix"])
def test_a_source_that_is_no_picture_costs_only_its_own_part(
    intake: Intake, source: str, processing: str
):
    changes = {"source_image": source, "source_processing": processing}
    work = intake.take_in(job({"denoising_strength": 0.4}, **changes))
    assert (work.params.source, work.params.denoise) == (TextOnly(), 1.0)
    assert [(note["type"], note["value"]) for note in bodies(work)] == [
        ("source_image", "parse_failed")
    ]


def test_a_controlling_picture_is_not_started_from_too(intake: Intake):
    work = intake.take_in(job({"control_type": "canny"}, source_image=base64_png()))
    assert work.params.control is not None
    assert isinstance(work.params.source, TextOnly)


def test_a_controlling_picture_is_started_from_where_the_job_says_how_much(intake: Intake):
    payload = {"control_type": "canny", "denoising_strength": 0.6}
    work = intake.take_in(job(payload, source_image=base64_png()))
    assert work.params.control is not None
    assert isinstance(work.params.source, FromImage)


def test_a_control_type_without_its_files_is_a_fault_that_names_them(intake: Intake):
    with pytest.raises(ModelMissing, match=r"hed.*diff_control_sd15_hed_fp16"):
        intake.take_in(job({"control_type": "hed"}, source_image=f"{NOBODY}/x"))


@pytest.mark.parametrize(
    ("control_type", "asked", "needed"),
    [
        ("standard_lineart", "return_control_map", ()),
        ("hed", "return_control_map", ("annotators/ControlNetHED.pth",)),
        ("hed", "image_is_control", ("diff_control_sd15_hed_fp16.safetensors",)),
        ("color", "", ("t2iadapter_color_sd14v1.pth",)),
        (
            "openpose",
            "return_control_map",
            (
                "annotators/body_pose_model.pth",
                "annotators/hand_pose_model.pth",
                "annotators/facenet.pth",
            ),
        ),
    ],
)
def test_a_job_needs_of_a_control_type_only_what_it_uses(
    intake: Intake, folder: Path, control_type: str, asked: str, needed: tuple[str, ...]
):
    payload = {"control_type": control_type} | ({asked: True} if asked else {})
    popped = job(payload, source_image=base64_png())
    for name in needed:
        with pytest.raises(ModelMissing, match=Path(name).name):
            intake.take_in(popped)
        file = folder / "controlnet" / name
        file.parent.mkdir(exist_ok=True)
        file.touch()
    control = intake.take_in(popped).params.control
    assert control is not None
    assert control.type == control_type


def test_a_control_type_without_a_picture_is_left_out_and_noted(intake: Intake):
    work = intake.take_in(job({"control_type": "canny"}))
    assert work.params.control is None
    assert "control_type left out" in bodies(work)[0]["ref"]


def test_a_control_map_of_no_picture_is_a_fault(intake: Intake):
    with pytest.raises(BadSource, match="return_control_map: there is no source image"):
        intake.take_in(job({"control_type": "canny", "return_control_map": True}))


@pytest.mark.parametrize("processing", ["img2img", "inpainting", "outpainting"])
@pytest.mark.parametrize("name", ["Deliberate", "Painter"])
@pytest.mark.parametrize("payload", [{}, {"control_type": "canny"}])
def test_nothing_is_repainted_whose_mask_can_not_be_had(
    intake: Intake, processing: str, name: str, payload: dict[str, Any]
):
    sources = {"source_image": base64_png(), "source_mask": "no base64 at all"}
    with pytest.raises(BadSource, match="source_mask: neither"):
        intake.take_in(job(payload, model=name, source_processing=processing, **sources))


@pytest.mark.parametrize("field", ["source_image", "source_mask", "extra_sources"])
def test_trouble_of_the_network_is_a_fault_since_another_worker_may_have_none(
    intake: Intake, monkeypatch: pytest.MonkeyPatch, field: str
):
    monkeypatch.setattr("worker.line.source_fetcher._FIRST_PAUSE_SECONDS", 60.0)
    refused = f"{NOBODY}/x"
    value = (ExtraSource(image=refused),) if field == "extra_sources" else refused
    changes: dict[str, Any] = {"source_processing": "remix", field: value}
    with pytest.raises(TryLater, match=rf"^{field[:6]}.*: connection refused"):
        intake.take_in(job(**changes))


def test_a_qr_code_that_can_not_fit_is_a_fault_before_anything_is_fetched(
    intake: Intake, folder: Path
):
    (folder / "controlnet" / "control_v1p_sd15_qrcode_monster_v2.safetensors").touch()
    small = {"width": 64, "height": 64, "workflow": "qr_code"}
    payload = small | {"extra_texts": [{"reference": "qr_code", "text": "hi"}]}
    with pytest.raises(InvalidParams, match=r"extra_texts='hi'.*192 x 192"):
        intake.take_in(job(payload, source_image=f"{NOBODY}/x"))


def test_a_lora_of_the_owners_is_found_by_its_name(intake: Intake, folder: Path):
    path = folder / "lora" / "Mine.safetensors"
    path.write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    work = intake.take_in(job({"loras": [{"name": "mine", "model": 0.5}]}))
    assert work.params.loras == (Lora("mine", path, model=0.5),)
    assert work.notes == ()


def test_what_cannot_be_had_is_left_out_and_noted(intake: Intake):
    payload = {"loras": [{"name": "../../x"}], "tis": [{"name": "7808", "strength": 1.0}]}
    work = intake.take_in(job(payload, ttl_seconds=1))
    assert work.params.loras == ()
    assert bodies(work) == [
        {"type": "lora", "value": "download_failed", "ref": "../../x"},
        {"type": "ti", "value": "download_failed", "ref": "7808"},
    ]


def test_choices_of_words_are_made_with_the_jobs_seed(intake: Intake):
    prompts = {intake.take_in(job({"prompt": "{a|b|c|d} fox"})).params.prompt for _ in range(3)}
    assert len(prompts) == 1
    assert prompts < {"a fox", "b fox", "c fox", "d fox"}


@pytest.mark.parametrize("mark", ["{##}#", "{#}##", "{##}{##}"])
def test_no_choice_of_words_hides_what_follows_from_the_censorlist(intake: Intake, mark: str):
    work = intake.take_in(job({"prompt": f"a {mark} spider###fly"}))
    assert asks_for(work.prompt, "spider")
    assert not asks_for(work.prompt, "fly")


def test_a_transparent_picture_is_made_with_the_files_of_the_reference(
    intake: Intake, folder: Path
):
    (folder / "miscellaneous").mkdir()
    names = (
        "layer_sd15_transparent_attn.safetensors",
        "layer_sd15_vae_transparent_decoder.safetensors",
    )
    for name in names:
        (folder / "miscellaneous" / name).touch()
    files = intake.take_in(job({"transparent": True})).params.transparent
    assert files == Transparency(*(folder / "miscellaneous" / name for name in names))
    with pytest.raises(NotServed, match="transparent with stable diffusion 2"):
        intake.take_in(job({"transparent": True}, model="Old"))
    assert intake.take_in(job({"transparent": False}, model="Old")).params.transparent is None


@pytest.mark.parametrize(
    ("payload", "error"),
    [
        ({"transparent": True}, ModelMissing),
        ({"workflow": "qr_code"}, ModelMissing),
        ({"post_processing": ["GFPGAN"]}, ModelMissing),
        ({"post_processing": ["../../etc/passwd"]}, ModelMissing),
    ],
)
def test_what_would_be_another_picture_is_a_fault(
    intake: Intake, payload: dict[str, Any], error: type[JobError]
):
    with pytest.raises(error):
        intake.take_in(job(payload))
