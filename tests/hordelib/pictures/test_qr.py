"""QR codes: drawn so that they can be read, and hidden in a picture."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from hordelib import Engine, GenerationParams
from hordelib.demo_model import ensure_control_net
from hordelib.errors import InvalidParams
from hordelib.files.model import Model
from hordelib.graph import Link
from hordelib.graphs.build import build_graph
from hordelib.job.families import SD1, SDXL, Family
from hordelib.job.params import QrCode
from hordelib.job.samplers import SAMPLERS
from hordelib.pictures.qr_code import (
    DRAWERS,
    GREY,
    Layers,
    draw_layers,
    insist_on_room,
    read_qr_code,
)
from tests.support.family_files import model_of
from tests.support.looks import difference, pixels

CONTROL_NET = Path("/models/control_v1p_sd15_qrcode_monster_v2.safetensors")
CODE = QrCode(text="aihorde.net", protocol="https", model=CONTROL_NET)
JOB = GenerationParams(prompt="a red circle on a blue background", seed=3, steps=25, qr_code=CODE)


def _read(picture: Image.Image) -> str:
    """What a scanner reads; it gets the picture twice as large, as a camera would."""
    grey = np.asarray(picture.convert("L").resize((picture.width * 2, picture.height * 2)))
    text, _, _ = cv2.QRCodeDetector().detectAndDecode(grey)
    return text


def _values(picture: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(picture, dtype=np.uint8)


# ---- drawing ---------------------------------------------------------------------------------


@pytest.mark.parametrize("drawer", DRAWERS)
def test_a_code_can_be_read_whatever_its_modules_look_like(drawer: str):
    layers = draw_layers(replace(CODE, module_drawer=drawer), 768, 768)
    assert _read(layers.code) == "https://aihorde.net"


def test_every_drawer_draws_something_else():
    drawn = {
        draw_layers(replace(CODE, module_drawer=name), 512, 512).data.tobytes() for name in DRAWERS
    }
    assert len(drawn) == len(DRAWERS)


@pytest.mark.parametrize("size", [(512, 512), (1024, 768), (256, 320)])
def test_the_layers_together_are_the_code(size: tuple[int, int]):
    layers = draw_layers(CODE, *size)
    code, data = _values(layers.code), _values(layers.data)
    function, mask = _values(layers.function), _values(layers.function_mask)
    assert {layer.size for layer in (layers.code, layers.data, layers.function)} == {size}
    assert (code == np.where(mask == 255, function, data)).all()
    assert (data[mask == 255] == GREY).all()
    assert (function[mask == 0] == 255).all()


def test_a_code_lies_in_the_middle_unless_it_is_told_where():
    assert _corner(draw_layers(CODE, 1024, 768)) == (264, 136)
    assert _corner(draw_layers(replace(CODE, x_offset=100, y_offset=0), 1024, 768)) == (96, 0)


def test_a_code_never_leaves_the_picture():
    left, top = _corner(draw_layers(replace(CODE, x_offset=5000, y_offset=5000), 1024, 768))
    side = _side(draw_layers(CODE, 1024, 768))
    assert (left + side, top + side) == (1024, 768)


def test_a_small_picture_gets_smaller_modules():
    assert _side(draw_layers(CODE, 512, 512)) == 2 * _side(draw_layers(CODE, 256, 256))


@pytest.mark.parametrize("text", ["a" * 200, "a" * 5000])
def test_a_code_that_does_not_fit_is_refused(text: str):
    with pytest.raises(InvalidParams, match="extra_texts"):
        draw_layers(replace(CODE, text=text), 512, 512)


@pytest.mark.parametrize("text", ["hi", "a" * 1270, "1" * 3057, "a" * 1274, "a" * 1_000_000])
@pytest.mark.parametrize("side", [64, 192, 1024, 1472])
def test_a_code_is_refused_before_it_is_drawn_where_drawing_would_fail(text: str, side: int):
    code = replace(CODE, text=text, protocol="none")
    refused = _refusal(insist_on_room, code, side, side)
    assert bool(refused) == (side < {"hi": 184, "1" * 3057: 1432, "a" * 1270: 1432}.get(text, 9999))
    if len(text) < 10 or refused:
        assert refused == _refusal(draw_layers, code, side, side)


def test_a_refusal_says_how_large_the_picture_would_have_to_be():
    told = r"'hi': expected .* 64 pixels; this one needs 192 x 192"
    with pytest.raises(InvalidParams, match=told):
        insist_on_room(replace(CODE, text="hi", protocol="none"), 64, 64)


def _refusal(check: Callable[[QrCode, int, int], object], code: QrCode, *size: int) -> str:
    try:
        check(code, *size)
    except InvalidParams as error:
        return str(error)
    return ""


def _corner(layers: Layers) -> tuple[int, int]:
    rows, columns = np.nonzero(_values(layers.code) != GREY)
    return int(columns.min()), int(rows.min())


def _side(layers: Layers) -> int:
    columns = np.nonzero(_values(layers.code) != GREY)[1]
    return int(columns.max() - columns.min()) + 1


# ---- what the horde sends --------------------------------------------------------------------


def test_extra_texts_say_what_the_code_is_like():
    texts = [
        ("qr_code", " aihorde.net "),
        ("protocol", "HTTPS"),
        ("module_drawer", "Gapped Square"),
        ("function_layer_prompt", "gold"),
        ("x_offset", "64"),
        ("y_offset", "-3"),
        ("qr_border", "2"),
        ("unheard_of", "ignored"),
    ]
    code, notes = read_qr_code(texts, CONTROL_NET)
    assert code == QrCode(
        text="aihorde.net",
        protocol="https",
        module_drawer="gapped square",
        function_layer_prompt="gold",
        x_offset=64,
        y_offset=0,
        border=2,
        model=CONTROL_NET,
    )
    assert notes == ()


def test_a_setting_that_can_not_be_is_disclosed():
    texts = [("qr_code", "a"), ("protocol", "gopher"), ("x_offset", "²"), ("qr_border", "9" * 99)]
    code, notes = read_qr_code(texts, CONTROL_NET)
    assert code == QrCode(text="a", model=CONTROL_NET)
    assert [(note.ref or "").split()[0] for note in notes] == ["protocol", "x_offset", "qr_border"]


def test_a_job_without_a_text_to_encode_is_refused():
    with pytest.raises(InvalidParams, match="extra_texts"):
        read_qr_code([("protocol", "https"), ("qr_code", " ")], CONTROL_NET)


# ---- the graph -------------------------------------------------------------------------------


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("family", [SD1, SDXL], ids=lambda family: family.name)
def test_the_qr_graph_is_valid_to_comfyui(family: Family):
    import execution

    graph = build_graph(JOB, model_of(family)).to_api()
    valid, error, _, problems = asyncio.run(execution.validate_prompt("job", graph, None))
    assert valid, json.dumps([error, problems], default=str)


@pytest.mark.parametrize("steps", [1, 2, 3, 11, 12, 25, 100])
def test_every_pass_has_steps_however_few_there_are(steps: int):
    """The incumbents' last pass began at step 11 and was skipped for jobs of fewer steps."""
    graph = build_graph(replace(JOB, steps=steps), model_of(SD1))
    first, function, last = (
        graph.inputs(title) for title in ("data_sampler", "function_sampler", "sampler")
    )
    assert 0 <= function["start_at_step"] < function["end_at_step"] == first["end_at_step"]
    assert last["start_at_step"] == first["end_at_step"] < last["steps"]
    assert first["steps"] == function["steps"] == last["steps"] == max(2, steps)


def test_usual_jobs_are_divided_as_by_the_hordes_engine():
    graph = build_graph(JOB, model_of(SD1))
    assert graph.inputs("sampler")["start_at_step"] == 11
    assert graph.inputs("function_sampler")["start_at_step"] == 1


def test_all_passes_have_the_jobs_settings():
    job = replace(JOB, cfg=6.5, sampler=SAMPLERS["k_dpmpp_2m"])
    graph = build_graph(job, model_of(SD1))
    for title in ("data_sampler", "function_sampler", "sampler"):
        inputs = graph.inputs(title)
        assert (inputs["noise_seed"], inputs["cfg"], inputs["sampler_name"]) == (3, 6.5, "dpmpp_2m")


def test_the_patterns_have_a_prompt_of_their_own():
    told = replace(JOB, qr_code=replace(CODE, function_layer_prompt="gold"))
    assert build_graph(told, model_of(SD1)).inputs("function_prompt")["text"] == "gold"
    assert build_graph(JOB, model_of(SD1)).inputs("function_prompt")["text"] == JOB.prompt


def test_every_sampler_of_the_qr_graph_reads_the_model_that_a_lora_changes():
    readers = {title for title, _ in build_graph(JOB, model_of(SD1)).readers(Link("checkpoint", 0))}
    assert {"data_sampler", "function_sampler", "sampler"} <= readers


@pytest.mark.timeout(120)
def test_pictures_with_a_qr_code_are_made_each_as_it_would_be_alone(
    engine: Engine, models: Path, checkpoint: Path
):
    """With the demo model's own ControlNet, which knows nothing of codes: all nodes do run."""
    control_net = ensure_control_net(models)
    code = replace(CODE, text="a", protocol="none", border=0, model=control_net)
    job = replace(JOB, width=192, height=192, steps=3, qr_code=code)
    model = Model.of_checkpoint(checkpoint)
    first, second = engine.generate(replace(job, images=2), model).images
    (alone,) = engine.generate(replace(job, seed=job.seed + 1), model).images
    assert (first.width, first.height) == (192, 192)
    assert pixels(first).std() > 10
    assert difference(second, alone) <= 2 < difference(first, alone)
