"""Annotators with random weights in files of the real layout: they load, draw, and ask nobody.

What the real weights see can't be tested without them; that the networks are the ones that the
files are for is what `load_state_dict` insists on.
"""

from __future__ import annotations

import importlib
import socket
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch

from hordelib import Engine
from hordelib.errors import AuxiliaryBroken, NotNumbers
from hordelib.job.control_types import ControlType
from hordelib.job.params import Control
from hordelib.pictures.annotators import READERS, draw_at_size, read_annotator
from tests.hordelib.comfyui.test_control import SHOWN, TOLD, control_map, source

PICTURE = np.random.default_rng(1).integers(0, 256, (72, 128, 3), dtype=np.uint8)


def module(name: str) -> Any:
    return importlib.import_module(f"controlnet_aux.{name}")


def hed() -> Any:
    return module("hed").ControlNetHED_Apache2().state_dict()


def leres() -> Any:
    return {"depth_model": module("leres").RelDepthModel("resnext101").state_dict()}


def midas() -> Any:
    return module("midas.midas.dpt_depth").DPTDepthModel(backbone="vitb_rn50_384").state_dict()


def openpose() -> Any:
    """Its file names layers without their blocks, as the framework that it came from did."""
    state = module("open_pose.model").bodypose_model().state_dict()
    return {key.split(".", 1)[1]: value for key, value in state.items()}


def upernet() -> Any:
    from transformers import ConvNextConfig, UperNetConfig, UperNetForSemanticSegmentation

    stages = ["stage1", "stage2", "stage3", "stage4"]
    backbone = ConvNextConfig(depths=[3, 3, 27, 3], out_features=stages)
    config = UperNetConfig(backbone_config=backbone, num_labels=150)
    return UperNetForSemanticSegmentation(config).state_dict()


def mlsd() -> Any:
    return module("mlsd").MobileV2_MLSD_Large().state_dict()


RANDOM: dict[ControlType, Callable[[], Any]] = {
    ControlType.hed: hed,
    ControlType.depth: leres,
    ControlType.normal: midas,
    ControlType.openpose: openpose,
    ControlType.seg: upernet,
    ControlType.fakescribbles: hed,
    ControlType.hough: mlsd,
    ControlType.mlsd: mlsd,
}


def save(control_type: ControlType, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(RANDOM[control_type](), path)
    return path


@pytest.fixture
def nobody_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> NoReturn:
        raise AssertionError("an annotator opened a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.usefixtures("nobody_to_ask")
@pytest.mark.parametrize("control_type", READERS)
def test_every_network_draws_a_map_of_the_pictures_size_or_none(
    control_type: ControlType, tmp_path: Path
):
    torch.set_rng_state(torch.Generator().manual_seed(3).get_state())
    annotator = read_annotator(control_type, save(control_type, tmp_path / "weights.pth"))
    with torch.inference_mode():
        drawn = draw_at_size(annotator.draw, PICTURE)
    assert drawn.shape == PICTURE.shape
    assert drawn.dtype == np.uint8
    assert not annotator.network.training
    with torch.no_grad():
        for parameter in annotator.network.parameters():
            parameter.fill_(torch.nan)
    with pytest.raises(NotNumbers, match=r"^weights\.pth gives"), torch.inference_mode():
        annotator.draw(PICTURE)


def test_a_network_draws_in_the_engine_and_stays_on_loan_only_for_that(
    engine: Engine, tmp_path: Path
):
    weights = save(ControlType.hed, tmp_path / "ControlNetHED.pth")
    control = Control(
        type=ControlType.hed, image=source(SHOWN), model=Path("none"), annotator=weights
    )
    shown = control_map(engine, replace(TOLD, width=128, control=control))
    assert shown.shape == (64, 128, 3)
    assert np.ptp(shown) > 0
    again = control_map(engine, replace(TOLD, width=128, control=control))
    assert (again == shown).all()


def test_weights_of_another_network_are_named(engine: Engine, tmp_path: Path):
    weights = save(ControlType.hed, tmp_path / "mlsd_large_512_fp32.pth")
    control = Control(
        type=ControlType.mlsd, image=source(SHOWN), model=Path("none"), annotator=weights
    )
    with pytest.raises(AuxiliaryBroken, match=r"mlsd_large_512_fp32\.pth"):
        control_map(engine, replace(TOLD, control=control))


def test_lines_of_a_picture_without_any_are_none(tmp_path: Path):
    weights = save(ControlType.mlsd, tmp_path / "weights.pth")
    state = torch.load(weights)
    torch.save({key: torch.zeros_like(value) for key, value in state.items()}, weights)
    with torch.inference_mode():
        assert not read_annotator(ControlType.mlsd, weights).draw(PICTURE[:64]).any()
