"""Annotators with random weights in files of the real layout: they load, draw, and ask nobody.

What the real weights see can't be tested without them; that the networks are the ones that the
files are for is what `load_state_dict` insists on.
"""

from __future__ import annotations

import importlib
import re
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch

from hordelib import Engine
from hordelib.comfyui.device import default_folder
from hordelib.errors import AuxiliaryBroken, NotNumbers
from hordelib.job.control_types import ControlType
from hordelib.job.params import Control
from hordelib.pictures import transformer_maps
from hordelib.pictures.annotators import READERS, draw_at_size, read_annotator
from tests.hordelib.comfyui.test_control import SHOWN, TOLD, control_map, source
from tests.support.annotator_weights import save_weights

PICTURE = np.random.default_rng(1).integers(0, 256, (72, 128, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Callable[[ControlType], Path]:
    """The first file of a type's annotator; types share files."""
    folder = tmp_path_factory.mktemp("annotators")
    return lambda control_type: save_weights(control_type, folder)


@pytest.fixture(autouse=True)
def small_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """OneFormer scales pictures to sides of its own, which take a CPU minutes."""
    monkeypatch.setattr(transformer_maps, "ADE20K_SIDES", (96, 400))
    monkeypatch.setattr(transformer_maps, "COCO_SIDES", (96, 400))


@pytest.fixture
def nobody_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> NoReturn:
        raise AssertionError("an annotator opened a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.usefixtures("nobody_to_ask")
@pytest.mark.parametrize("control_type", READERS)
def test_every_network_draws_a_map_of_the_pictures_size_or_none(
    control_type: ControlType, weights: Callable[[ControlType], Path]
):
    file = weights(control_type)
    annotator = read_annotator(control_type, file)
    with torch.inference_mode():
        drawn = draw_at_size(annotator.draw, PICTURE)
    assert drawn.shape == PICTURE.shape
    assert drawn.dtype == np.uint8
    assert not annotator.network.training
    with torch.no_grad():
        for parameter in annotator.network.parameters():
            parameter.fill_(torch.nan)
    with pytest.raises(NotNumbers, match=re.escape(f"{file.name} gives")), torch.inference_mode():
        annotator.draw(PICTURE)


def test_a_network_draws_in_the_engine_and_stays_on_loan_only_for_that(
    engine: Engine, weights: Callable[[ControlType], Path]
):
    file = weights(ControlType.hed)
    control = Control(type=ControlType.hed, image=source(SHOWN), model=Path("none"), annotator=file)
    shown = control_map(engine, replace(TOLD, width=128, control=control))
    assert shown.shape == (64, 128, 3)
    assert np.ptp(shown) > 0
    again = control_map(engine, replace(TOLD, width=128, control=control))
    assert (again == shown).all()


def test_weights_of_another_network_are_named(
    engine: Engine, weights: Callable[[ControlType], Path], tmp_path: Path
):
    other = tmp_path / "mlsd_large_512_fp32.pth"
    other.symlink_to(weights(ControlType.hed))
    control = Control(
        type=ControlType.mlsd, image=source(SHOWN), model=Path("none"), annotator=other
    )
    with pytest.raises(AuxiliaryBroken, match=r"mlsd_large_512_fp32\.pth"):
        control_map(engine, replace(TOLD, control=control))


def test_lines_of_a_picture_without_any_are_none(
    weights: Callable[[ControlType], Path], tmp_path: Path
):
    state = torch.load(weights(ControlType.mlsd))
    none = tmp_path / "weights.pth"
    torch.save({key: torch.zeros_like(value) for key, value in state.items()}, none)
    with torch.inference_mode():
        assert not read_annotator(ControlType.mlsd, none).draw(PICTURE[:64]).any()


def test_weights_that_lie_beside_the_first_file_are_missed_by_their_name(
    engine: Engine, weights: Callable[[ControlType], Path], tmp_path: Path
):
    body = tmp_path / "body_pose_model.pth"
    body.symlink_to(weights(ControlType.openpose))
    control = Control(
        type=ControlType.openpose, image=source(SHOWN), model=Path("none"), annotator=body
    )
    with pytest.raises(AuxiliaryBroken, match=r"hand_pose_model\.pth"):
        control_map(engine, replace(TOLD, control=control))


@pytest.mark.parametrize("control_type", [ControlType.depth_anything_v2, ControlType.zoe_depth])
def test_a_very_long_picture_takes_no_more_than_a_square_one(
    control_type: ControlType, weights: Callable[[ControlType], Path]
):
    """Attention takes the square of the pixels."""
    annotator = read_annotator(control_type, weights(control_type))
    seen: list[int] = []
    encoder = annotator.network.get_submodule("backbone")
    encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].numel()))
    for height, width in ((64, 64), (64, 3072), (3072, 64)):
        with torch.inference_mode():
            drawn = draw_at_size(annotator.draw, np.zeros((height, width, 3), np.uint8))
        assert drawn.shape == (height, width, 3)
    assert max(seen) <= 8 * seen[0]  # of 48 times as many pixels; small networks round up


def test_depths_reach_from_black_to_white_and_flat_ones_are_flat(
    weights: Callable[[ControlType], Path],
):
    for control_type in (ControlType.depth_anything, ControlType.depth_anything_v2):
        annotator = read_annotator(control_type, weights(control_type))
        with torch.inference_mode():
            assert np.ptp(annotator.draw(PICTURE)) in (*range(250, 256), 0)


def test_the_task_of_segmenting_is_said_in_clips_own_tokens():
    transformers: Any = importlib.import_module("transformers")
    tokenizer = transformers.CLIPTokenizer.from_pretrained(
        default_folder() / "comfy" / "sd1_tokenizer"
    )
    assert tuple(tokenizer("the task is semantic")["input_ids"]) == transformer_maps.SEMANTIC_TASK


def test_classes_have_colours_of_their_own():
    colours = transformer_maps.golden_colours(150)
    assert colours[0].tolist() == [0, 0, 0]
    assert len({tuple(colour) for colour in colours.tolist()}) == 150


def test_the_strongest_class_wins_every_pixel():
    shares = np.zeros((3, 4, 4), np.float32)
    shares[1, :, :2] = 0.5
    shares[2, :, 2:] = 0.5
    found = transformer_maps._strongest(shares, (16, 8))
    assert found.shape == (8, 16)
    assert (found[:, :7] == 1).all()
    assert (found[:, 9:] == 2).all()
