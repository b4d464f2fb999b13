"""What are not numbers never becomes a picture, whichever part of the job gave them."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
import threading
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from hordelib import Engine
from hordelib.comfyui.device import Device
from hordelib.comfyui.executor import Executor
from hordelib.comfyui.nodes.context import RunContext, Wanted
from hordelib.demo_model import ensure_control_net
from hordelib.engine import unwatched
from hordelib.errors import AuxiliaryBroken, NotNumbers
from hordelib.files.model_key import ModelKey
from hordelib.graph import Graph, Link
from hordelib.job.control_types import ControlType
from hordelib.job.images import Picture, SourceImage
from hordelib.job.params import Control, FromImage, PostProcessor, ProcessorKind
from hordelib.job.samplers import Scheduler
from hordelib.pictures.finite import are_numbers
from tests.hordelib.comfyui.test_control import MODEL
from tests.hordelib.test_engine import SCENES, SMALL
from tests.support.annotator_weights import save_weights
from tests.support.drawn_faces import draw_face
from tests.support.looks import difference, look
from tests.support.tiny_networks import (
    write_brightness,
    write_compact,
    write_dat,
    write_green_faces,
)

QUICK = replace(SMALL, steps=1)
SOURCE = FromImage(SourceImage.of_pil(Image.new("RGB", (64, 64), "red")))

DECODER = "first_stage_model.taesd_decoder"
UNET = "model.diffusion_model"
NAN, INF = float("nan"), float("inf")


def changed(checkpoint: Path, path: Path, change: Callable[[dict[str, Tensor]], None]) -> Path:
    state = load_file(checkpoint)
    change(state)
    save_file(state, path)
    return path


def poke(path: Path, name: str, value: float) -> float:
    """Overwrite the first value of one tensor of 16 bits in the file; what it was."""
    with path.open("r+b") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        start = 8 + length + json.loads(file.read(length))[name]["data_offsets"][0]
        file.seek(start)
        (before,) = struct.unpack("<e", file.read(2))
        file.seek(start)
        file.write(struct.pack("<e", value))
    return before


@pytest.fixture(scope="module")
def frail(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo model, for tests that break it and mend it again."""
    return Path(shutil.copy(checkpoint, tmp_path_factory.mktemp("frail")))


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        (f"{UNET}.out.2.weight", NAN, "sampler: the diffusion model"),
        (f"{DECODER}.19.weight", NAN, "decode: the VAE"),
        (f"{DECODER}.19.bias", INF, "decode: the VAE"),  # ComfyUI would clamp it to white
        ("first_stage_model.taesd_encoder.14.bias", NAN, "source_latent: the VAE"),
        (
            "cond_stage_model.transformer.text_model.final_layer_norm.bias",
            NAN,
            "negative_prompt: the text encoder",
        ),
    ],
)
def test_a_broken_part_of_the_model_gives_no_picture_and_is_named(
    engine: Engine, frail: Path, name: str, value: float, told: str
):
    job = replace(QUICK, source=SOURCE, denoise=0.9)
    before = poke(frail, name, value)
    with pytest.raises(NotNumbers, match=f"^{told} gives values that are not numbers$"):
        engine.generate(job, frail)
    poke(frail, name, before)
    assert engine.generate(job, frail).images


def broken_network(path: Path, part: str) -> Path:
    """The same file of torch's, with a NaN in the tensor of this name."""
    state = torch.load(path, weights_only=True)
    state[part] = torch.full_like(state[part], NAN)
    torch.save(state, path)
    return path


def broken_upscaler(folder: Path) -> PostProcessor:
    path = broken_network(write_compact(folder / "up.pth"), "body.0.bias")
    return PostProcessor("up", ProcessorKind.upscaler, path)


def broken_face_fixer(folder: Path) -> PostProcessor:
    path = broken_network(write_green_faces(folder / "face.pth"), "decoder.conv_out.bias")
    return PostProcessor("face", ProcessorKind.face_fixer, path)


def broken_background(folder: Path) -> PostProcessor:
    path = write_brightness(folder / "u2net.onnx", slope=NAN)
    return PostProcessor("strip_background", ProcessorKind.background, path)


@pytest.mark.parametrize("broken", [broken_upscaler, broken_face_fixer, broken_background])
def test_a_broken_post_processor_gives_no_picture_and_is_named(
    engine: Engine, checkpoint: Path, tmp_path: Path, broken: Callable[[Path], PostProcessor]
):
    processor = broken(tmp_path)
    face = SourceImage.of_pil(draw_face(256))
    job = replace(SMALL, width=256, height=256, steps=1, source=FromImage(face), denoise=0.01)
    with pytest.raises(AuxiliaryBroken, match=f"{processor.path.name} gives values") as raised:
        engine.generate(replace(job, post_processing=(processor,)), checkpoint)
    assert raised.value.path == processor.path


def test_a_broken_annotator_gives_no_map_and_is_named(engine: Engine, tmp_path: Path):
    weights = save_weights(ControlType.hed, tmp_path)
    broken_network(weights, "norm")
    control = Control(type=ControlType.hed, image=SOURCE.image, model=Path(), annotator=weights)
    job = replace(QUICK, control=control, return_control_map=True)
    with pytest.raises(AuxiliaryBroken, match=r"ControlNetHED\.pth gives values"):
        engine.generate(job, MODEL)


def test_a_broken_control_net_gives_no_picture(
    engine: Engine, checkpoint: Path, models: Path, tmp_path: Path
):
    broken = Path(shutil.copy(ensure_control_net(models), tmp_path))
    poke(broken, "control_model.middle_block_out.0.weight", NAN)
    control = Control(type=ControlType.canny, image=SOURCE.image, model=broken)
    with pytest.raises(AuxiliaryBroken, match=f"{broken.name} gives values") as raised:
        engine.generate(replace(QUICK, control=control), checkpoint)
    assert raised.value.path == broken


# ---- full precision --------------------------------------------------------------------------


def decode(vae: Path) -> Picture:
    """What the VAE of a checkpoint makes of an empty latent."""
    from hordelib.comfyui.loaders import load_part

    key = ModelKey("checkpoint", vae, "vae")
    graph = Graph()
    graph.add("checkpoint", "DreamerCheckpoint", ckpt_name=str(vae))
    graph.add("latent", "EmptyLatentImage", width=16, height=16, batch_size=1)
    graph.add("decode", "VAEDecode", samples=Link("latent", 0), vae=Link("checkpoint", 2))
    graph.add("output", "DreamerOutput", images=Link("decode", 0), filename_prefix="")
    part = load_part(key)
    part.to_device()
    wanted = (Wanted("", 0, 0),)
    context = RunContext({key: part.value}, {}, unwatched, threading.Event(), wanted)
    Executor(Device("cpu")).run(graph.to_api(), context)
    return context.pictures[0]


def loud_decoder(state: dict[str, Tensor]) -> None:
    """The same decoder, but that one of its layers gives what 16 bits can't hold, to the next."""
    block = f"{DECODER}.18.conv"
    state[f"{block}.0.weight"] *= 2.0**17
    state[f"{block}.0.bias"] *= 2.0**17
    state[f"{block}.2.weight"] *= 2.0**-9
    state[f"{block}.2.bias"] *= 2.0**8
    state[f"{block}.4.weight"] *= 2.0**-8


def as_on_a_card(*_: object, **_settings: object) -> bool:
    """Whether ComfyUI is to compute in 16 bits."""
    return True


def loud_unet(state: dict[str, Tensor]) -> None:
    state[f"{UNET}.input_blocks.0.0.weight"] *= 2.0**16


TOLD = "not numbers; trying again in full precision"


def test_a_vae_that_overflows_in_16_bits_decodes_in_32(
    engine: Engine,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    engine.start()
    loud = changed(checkpoint, tmp_path / "loud.safetensors", loud_decoder)
    expected = decode(loud)
    assert difference(expected, decode(checkpoint)) <= 1
    assert TOLD not in caplog.text
    monkeypatch.setattr(import_module("comfy.cli_args").args, "fp16_vae", True)
    assert difference(decode(loud), expected) <= 1
    assert caplog.text.count(f"decode: the VAE gives values that are {TOLD}") == 1
    assert difference(decode(checkpoint), expected) <= 2
    assert caplog.text.count(TOLD) == 1


def test_a_vae_with_a_nan_gives_none_in_32_bits_either(
    engine: Engine,
    frail: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    engine.start()
    monkeypatch.setattr(import_module("comfy.cli_args").args, "fp16_vae", True)
    before = poke(frail, f"{DECODER}.19.bias", NAN)
    with pytest.raises(NotNumbers, match="the VAE"):
        decode(frail)
    poke(frail, f"{DECODER}.19.bias", before)
    assert caplog.text.count(TOLD) == 1


def test_a_model_that_overflows_in_16_bits_samples_in_32(
    engine: Engine,
    frail: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    loud = changed(frail, tmp_path / "loud.safetensors", loud_unet)
    expected = engine.generate(QUICK, loud).images[0]
    assert TOLD not in caplog.text
    memory = import_module("comfy.model_management")
    monkeypatch.setattr(memory, "should_use_fp16", as_on_a_card)
    os.utime(loud)  # it is read anew
    wide = engine.generate(QUICK, loud)
    assert wide.was_wide
    assert difference(wide.images[0], expected) <= 2
    assert f"sampler: the diffusion model gives values that are {TOLD}" in caplog.text
    os.utime(frail)
    narrow = engine.generate(replace(QUICK, seed=5), frail)
    assert not narrow.was_wide
    assert caplog.text.count(TOLD) == 1
    os.utime(frail)


def learnt(engine: Engine) -> dict[str, float]:
    """What the engine knows of the memory that jobs take; a test may make it forget."""
    assert engine._loaded is not None
    return engine._loaded.models._estimates._corrections._factors


def test_a_model_that_needs_32_bits_pays_for_one_run_and_teaches_nothing(
    engine: Engine,
    frail: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    monkeypatch.setattr(import_module("comfy.model_management"), "should_use_fp16", as_on_a_card)
    monkeypatch.setattr("hordelib.memory.estimates.TELLING_BYTES", 0)
    loud = changed(frail, tmp_path / "loud.safetensors", loud_unet)
    engine.start()
    learnt(engine).clear()
    for seed in (1, 2, 3):  # the first one has two tries
        assert engine.generate(replace(QUICK, seed=seed), loud).was_wide
    assert caplog.text.count(TOLD) == 1
    assert not learnt(engine)
    os.utime(loud)  # another file may do in 16 bits
    assert engine.generate(replace(QUICK, seed=4), loud).was_wide
    assert caplog.text.count(TOLD) == 2
    os.utime(frail)
    assert not engine.generate(replace(QUICK, seed=5), frail).was_wide
    assert learnt(engine)
    os.utime(frail)


def test_text_encoders_compute_in_32_bits_whatever_their_weights_are(
    engine: Engine, checkpoint: Path
):
    """So that they need no second try."""
    engine.start()
    from hordelib.comfyui.loaders import load

    clip = load(ModelKey("checkpoint", checkpoint, "text_encoder"))
    (encoder,) = (each for each in clip.cond_stage_model.children())
    layers = [each for each in encoder.modules() if isinstance(each, torch.nn.Linear)]
    seen: list[torch.dtype] = []
    for layer in layers:
        layer.register_forward_pre_hook(lambda _layer, inputs: seen.append(inputs[0].dtype))
    clip.encode_from_tokens(clip.tokenize("a red circle"))
    assert {layer.weight.dtype for layer in layers} == {torch.float16}
    assert set(seen) == {torch.float32}


def test_an_upscaler_of_16_bits_computes_in_32_where_it_has_to(engine: Engine, tmp_path: Path):
    engine.start()
    from hordelib.comfyui.loaders import load
    from hordelib.comfyui.nodes.full_precision import full_precision, narrow_of

    upscaler = load(ModelKey("upscaler", write_dat(tmp_path / "dat.pth")))
    assert not list(narrow_of({"upscale_model": [upscaler]}))
    upscaler.network.bfloat16()
    with full_precision(narrow_of({"upscale_model": [upscaler]})):
        assert upscaler.network.dtype == torch.float32
    assert upscaler.network.dtype == torch.bfloat16


# ---- schedules -------------------------------------------------------------------------------


def test_a_single_step_of_kl_optimal_is_a_picture(engine: Engine, checkpoint: Path):
    job = replace(SMALL, steps=1, scheduler=Scheduler.kl_optimal)
    made, usual = (
        engine.generate(replace(job, scheduler=scheduler), checkpoint).images[0]
        for scheduler in (Scheduler.kl_optimal, Scheduler.karras)
    )
    assert difference(made, usual) <= 2  # both go from the largest noise level to none
    assert look(made, SCENES[0]).background == "blue"


TABLES = {Scheduler.align_your_steps: ("_SD1", "_SDXL")}
SCHEDULES = [each + table for each in Scheduler for table in TABLES.get(each, ("",))]


@pytest.mark.parametrize("scheduler", SCHEDULES)
def test_every_schedule_falls_to_zero_whatever_the_number_of_steps(engine: Engine, scheduler: str):
    engine.start()
    from comfy.samplers import calculate_sigmas

    for steps in (1, 2, 3, 30):
        sigmas = calculate_sigmas(_sampling(), scheduler, steps)
        assert len(sigmas) >= steps + 1
        assert are_numbers(sigmas)
        assert (sigmas[1:] < sigmas[:-1]).all()
        assert sigmas[-1] == 0


def _sampling() -> Any:
    kinds = import_module("comfy.model_sampling")
    return type("Sampling", (kinds.ModelSamplingDiscrete, kinds.EPS), {})()


class Patcher:
    """As much of ComfyUI's ModelPatcher as a schedule asks for."""

    def __init__(self) -> None:
        self.load_device = torch.device("cpu")
        self.model_options: dict[str, Any] = {}

    def get_model_object(self, name: str) -> Any:
        assert name == "model_sampling"
        return _sampling()


@pytest.mark.parametrize("steps", [2, 9, 10, 20, 21, 30])
def test_schedules_of_nodes_are_comfyuis(engine: Engine, steps: int):
    engine.start()
    from comfy.samplers import calculate_sigmas

    gits = import_module("comfy_extras.nodes_gits").GITSScheduler
    ours = calculate_sigmas(_sampling(), "gits", steps)
    assert torch.equal(ours, gits.execute(1.2, steps, 1.0).result[0])
    node = import_module("comfy_extras.nodes_align_your_steps").AlignYourStepsScheduler
    for table in ("SD1", "SDXL"):
        ours = calculate_sigmas(_sampling(), f"align_your_steps_{table}", steps)
        assert torch.equal(ours, node.execute(table, steps, 1.0).result[0])


@pytest.mark.parametrize("scheduler", SCHEDULES)
@pytest.mark.parametrize("sampler", ["euler", "dpm_2", "exp_heun_2_x0"])
@pytest.mark.parametrize(("steps", "denoise"), [(6, 1.0), (6, 0.5), (60, 0.03)])
def test_levels_are_each_there_once_in_any_pass(
    engine: Engine, scheduler: str, sampler: str, steps: int, denoise: float
):
    """Sixty steps of 3 % are two thousand of a model with a thousand levels."""
    engine.start()
    from hordelib.comfyui.nodes.schedules import noise_levels

    asked: dict[str, Any] = {"sampler_name": sampler, "scheduler": scheduler}
    whole = noise_levels(Patcher(), steps=steps, **asked)
    levels = noise_levels(Patcher(), steps=steps, denoise=denoise, **asked)
    assert (levels[1:] < levels[:-1]).all()
    assert levels[-1] == 0
    assert torch.equal(levels, whole) if denoise == 1 else levels[0] < whole[0]
    assert len(levels) <= steps + 2


# ---- looking ---------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_one_bad_value_is_found_wherever_it_lies(bad: float):
    values = torch.ones(3, 5, 7)
    values[1, 2, 3] = bad
    for value in (
        values,
        [values],
        (1, "a", {"samples": values}),
        [[torch.ones(2), {"c": values}]],
    ):
        assert not are_numbers(value)


@pytest.mark.parametrize(
    "value",
    [
        torch.full((100,), 60000.0, dtype=torch.float16),  # whose sum overflows
        torch.full((4,), torch.finfo(torch.float32).max),
        torch.tensor([2**62, 2**62]),
        torch.ones(0),
        torch.ones(3, device="meta"),
        "nan",
        None,
    ],
    ids=str,
)
def test_large_numbers_are_numbers(value: object):
    assert are_numbers(value)


def test_the_error_survives_the_way_between_two_processes():
    error = pickle.loads(pickle.dumps(NotNumbers("decode: the VAE")))
    assert (str(error), error.part) == (
        "decode: the VAE gives values that are not numbers",
        "decode: the VAE",
    )
