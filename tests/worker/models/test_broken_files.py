"""What is offered while a file beside the models is broken: a ControlNet or a post-processor."""

from __future__ import annotations

from pathlib import Path

import pytest

from hordelib.errors import AuxiliaryBroken
from hordelib.files.model import Model
from hordelib.job import control_types, post_processors
from hordelib.job.families import SD1, SD2, SDXL
from hordelib.pictures.qr_code import control_net_file
from tests.worker.models.test_introduction import configured
from worker.cli.check import kinds_of_jobs
from worker.models.introduction import AGENT_WITHOUT_QR, NEWEST_AGENT
from worker.models.offer import offer_maker
from worker.models.offered import FLAGS, OfferedModels
from worker.models.opening import Models

QR_CODES = control_net_file(Path("models"), SD1.name)


@pytest.fixture
def offered(tmp_path: Path) -> OfferedModels:
    """Of a worker that has every file that is asked for."""
    folder = tmp_path / "models"
    assert QR_CODES is not None
    rows = post_processors.POST_PROCESSORS.values()
    files = {
        *(file.path for file in control_types.files_of_all(folder, control_types.CLASSIC)),
        *(folder / row.file for row in rows),
        tmp_path / QR_CODES,
    }
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    config = configured(allow_controlnet=True, allow_sdxl_controlnet=True, allow_lora=True)
    return OfferedModels(offer_maker(config, tmp_path), {"Mine": Model("Mine", SD1, {})})


def flags(offered: OfferedModels) -> set[str]:
    offer = offered.offer()
    return {flag for flag in FLAGS if getattr(offer, flag)}


@pytest.mark.parametrize(
    ("file", "flag"),
    [
        ("controlnet/control_seg_fp16.safetensors", "allow_controlnet"),
        ("controlnet/annotators/ControlNetHED.pth", "allow_controlnet"),
        ("esrgan/NMKD_Siax.pth", "allow_post_processing"),
        ("gfpgan/GFPGANv1.4.pth", "allow_post_processing"),
        ("rembg/u2net.onnx", "allow_post_processing"),
    ],
)
def test_what_needs_a_broken_file_is_not_offered_until_it_is_another_one(
    offered: OfferedModels, tmp_path: Path, caplog: pytest.LogCaptureFixture, file: str, flag: str
):
    path, usual = tmp_path / "models" / file, flags(offered)
    assert flag in usual
    offered.do_without(AuxiliaryBroken(path, f"{path}: damaged; fetch it again"))
    assert flags(offered) == usual - {flag}
    assert caplog.messages == [
        f"{path}: damaged; fetch it again; until it is mended, {flag} is not offered"
    ]
    with pytest.raises(AuxiliaryBroken, match="damaged"):
        offered.insist_on_usable([tmp_path, path])
    path.write_text("whole")
    assert flags(offered) == usual
    offered.insist_on_usable([path])


def test_a_file_that_is_gone_is_missed_until_it_is_back(offered: OfferedModels, tmp_path: Path):
    path = tmp_path / "models/esrgan/NMKD_Siax.pth"
    path.unlink()
    offered.do_without(AuxiliaryBroken(path, "gone"))
    assert "allow_post_processing" not in flags(offered)
    path.touch()
    assert "allow_post_processing" in flags(offered)


def test_an_upscaler_that_the_horde_does_not_know_costs_no_kind_of_job(
    offered: OfferedModels, tmp_path: Path
):
    usual, own = flags(offered), tmp_path / "models/esrgan/own.pth"
    own.touch()
    offered.do_without(AuxiliaryBroken(own, "damaged"))
    assert flags(offered) == usual
    with pytest.raises(AuxiliaryBroken):
        offered.insist_on_usable([own])


def test_no_qr_code_jobs_come_while_their_control_net_is_broken(
    offered: OfferedModels, tmp_path: Path
):
    assert QR_CODES is not None
    assert offered.offer().bridge_agent == NEWEST_AGENT
    offered.do_without(AuxiliaryBroken(tmp_path / QR_CODES, "damaged"))
    assert offered.offer().bridge_agent == AGENT_WITHOUT_QR
    (tmp_path / QR_CODES).write_text("whole")
    assert offered.offer().bridge_agent == NEWEST_AGENT


@pytest.mark.parametrize("rests", [True, False])
def test_what_is_left_is_offered_as_if_it_had_been_alone(tmp_path: Path, rests: bool):
    """A model of SDXL keeps QR code jobs away that Stable Diffusion 1 has no ControlNet for."""
    make = offer_maker(configured(allow_sdxl_controlnet=True), tmp_path)
    small, large = Model("Small", SD1, {}), Model("Large", SDXL, {})
    offered = OfferedModels(make, {"Small": small, "Large": large})
    assert offered.offer().bridge_agent == NEWEST_AGENT
    if rests:
        offered.rest("Large")
    else:
        offered.withdraw("Large", "broken")
    assert offered.offer() == make({"Small": small}, frozenset())
    assert offered.offer().bridge_agent == AGENT_WITHOUT_QR
    offered.add(large)
    assert offered.offer().bridge_agent == NEWEST_AGENT


def test_who_has_all_files_is_not_told_to_fetch_them(tmp_path: Path, offered: OfferedModels):
    served = {**offered.models, "Other": Model("Other", SD2, {})}
    found = list(kinds_of_jobs(configured(), tmp_path, Models(served, ())))
    (control,) = [each for each in found if each.name == "allow_controlnet"]
    assert "stable diffusion 2" in control.detail
    assert control.remedy == "set allow_controlnet: false to hide this warning"


def test_control_types_that_would_come_for_a_family_without_are_not_offered(
    offered: OfferedModels,
):
    assert "allow_controlnet" in flags(offered)
    offered.add(Model("Other", SD2, {}))
    assert "allow_controlnet" not in flags(offered)
    offered.withdraw("Other", "broken")
    assert "allow_controlnet" in flags(offered)
