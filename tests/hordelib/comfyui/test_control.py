"""ControlNet: the picture follows what a control map shows, together with everything else."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from hordelib import Engine, GenerationParams
from hordelib.comfyui.loaders.control_nets import load_control_net
from hordelib.demo_model import TRAINED_CONTROL, ensure_control_net, ensure_lora
from hordelib.demo_model.shapes import Scene, draw
from hordelib.errors import AuxiliaryBroken, InvalidParams, ModelMissing, NotServed
from hordelib.files.model import Model
from hordelib.files.model_key import ModelKey
from hordelib.graphs.build import build_graph
from hordelib.job.batching import share_key
from hordelib.job.control_types import (
    CLASSIC,
    CONTROL_TYPES,
    EXTENDED,
    ControlType,
    annotator_file,
    control_net_file,
    files_of,
    files_of_all,
)
from hordelib.job.families import SD1, SD2, SDXL
from hordelib.job.images import SourceImage
from hordelib.job.params import Control, FromImage, Inpaint, Lora
from hordelib.memory.estimates import MemoryEstimate
from tests.hordelib.test_engine import SMALL
from tests.support.looks import Pixels, difference, look, pixels

TOLD = replace(SMALL, prompt="a red circle on a blue background", steps=8)
SHOWN = Scene("cross", "red", "blue", place="on the left")
SWAPPED = replace(SHOWN, colour="blue", background="red")
OTHER = Scene("triangle", "red", "blue", place="at the bottom")
MODEL = Model("m", SD1, {"checkpoint": Path("model.safetensors")})


@pytest.fixture(scope="session")
def control_net(models: Path) -> Path:
    return ensure_control_net(models)


@pytest.fixture
def control(control_net: Path) -> Control:
    return Control(type=ControlType.canny, image=source(SHOWN), model=control_net)


def source(scene: Scene, side: int = 64) -> SourceImage:
    return SourceImage.of_pil(draw(scene, side))


def drawing(scene: Scene) -> SourceImage:
    """The same shape, black on white paper."""
    return source(replace(scene, colour="black", background="white"))


def silhouette(scene: Scene) -> SourceImage:
    """The same shape as a finished control map, white on black."""
    return source(replace(scene, colour="white", background="black"))


def make(engine: Engine, checkpoint: Path, params: GenerationParams) -> Any:
    return engine.generate(params, checkpoint).images[0]


# ---- what the picture shows ------------------------------------------------------------------


def test_without_control_the_picture_is_the_prompts(engine: Engine, checkpoint: Path):
    assert look(make(engine, checkpoint, TOLD), SHOWN).overlap < 0.4


@pytest.mark.parametrize("scene", [SHOWN, OTHER], ids=lambda scene: scene.shape)
@pytest.mark.parametrize("kind", ["canny", "scribble", "finished map"])
def test_the_shape_is_the_control_pictures_and_the_colours_are_the_prompts(
    engine: Engine, checkpoint: Path, control_net: Path, scene: Scene, kind: str
):
    controls = {
        "canny": Control(type=ControlType.canny, image=source(scene), model=control_net),
        "scribble": Control(type=ControlType.scribble, image=drawing(scene), model=control_net),
        "finished map": Control(
            type=ControlType.seg, image=silhouette(scene), model=control_net, image_is_control=True
        ),
    }
    seen = look(make(engine, checkpoint, replace(TOLD, control=controls[kind])), scene)
    assert (seen.colour, seen.background) == ("red", "blue")
    assert seen.overlap > 0.7


def test_no_strength_is_no_control_and_more_of_it_comes_closer(
    engine: Engine, checkpoint: Path, control: Control
):
    plain = make(engine, checkpoint, TOLD)
    none, some, full = (
        make(engine, checkpoint, replace(TOLD, control=replace(control, strength=strength)))
        for strength in (0.0, 0.6, 1.0)
    )
    assert difference(none, plain) == 0
    assert difference(make(engine, checkpoint, TOLD), plain) == 0  # nothing of it stays
    overlaps = [look(picture, SHOWN).overlap for picture in (plain, some, full)]
    assert overlaps == sorted(set(overlaps))


def test_the_control_picture_is_stretched_to_the_pictures_size(
    engine: Engine, checkpoint: Path, control: Control
):
    """Not cut, and not padded: a circle in the middle of a wide picture is an ellipse."""
    tall = SourceImage.of_pil(draw(SHOWN, 128).resize((70, 200)))
    params = replace(TOLD, width=128, control=replace(control, image=tall))
    picture = make(engine, checkpoint, params).to_pil().resize((64, 64))
    assert look(picture, SHOWN).overlap > 0.6


def test_image_i_of_a_batch_is_the_picture_of_seed_plus_i(
    engine: Engine, checkpoint: Path, control: Control
):
    params = replace(TOLD, control=control, steps=5, images=2)
    for picture in engine.generate(params, checkpoint).images:
        alone = replace(params, images=1, seed=picture.seed)
        assert difference(picture, make(engine, checkpoint, alone)) <= 2


# ---- together with everything else -----------------------------------------------------------


def test_both_passes_of_hires_fix_follow_the_control_picture(
    engine: Engine, checkpoint: Path, control: Control
):
    """With a family of the demo model's own size, so that 128 pixels take two passes.

    The second one starts from noise alone: what is seen is its own doing.
    """
    small = replace(Model.of_checkpoint(checkpoint), family=replace(SD1, native_side=64))
    params = replace(TOLD, width=128, height=128, hires_fix=True, hires_denoise=1.0, steps=6)
    picture = engine.generate(replace(params, control=control), small).images[0]
    assert look(picture, SHOWN).overlap > 0.6


def test_it_steers_a_picture_that_starts_from_another(
    engine: Engine, checkpoint: Path, control: Control
):
    start = Scene("circle", "red", "blue")
    params = replace(TOLD, source=FromImage(source(start)), denoise=0.8, control=control)
    steered = make(engine, checkpoint, params)
    seen = look(steered, SHOWN)
    assert (seen.colour, seen.background) == ("red", "blue")
    assert seen.overlap > 0.7
    kept = make(engine, checkpoint, replace(params, denoise=0.1))
    assert look(kept, start).overlap > look(steered, start).overlap + 0.1


def test_it_steers_what_is_repainted_and_nothing_else(
    engine: Engine, checkpoint: Path, control: Control
):
    blue = source(Scene("circle", "blue", "blue"))
    left_half = np.zeros((64, 64), np.uint8)
    left_half[:, :40] = 255
    mask = SourceImage(64, 64, "L", left_half.tobytes())
    params = replace(TOLD, source=Inpaint(blue, mask), control=control)
    picture = make(engine, checkpoint, params)
    assert look(picture, SHOWN).overlap > 0.7
    assert np.abs(pixels(picture) - pixels(blue.to_pil()))[:, 40:].max() <= 1


def test_loras_and_clip_skip_work_with_it(
    engine: Engine, checkpoint: Path, models: Path, control: Control
):
    """The LoRA takes red for blue and blue for red."""
    swap = Lora("swap", ensure_lora(models), clip=0.0)
    params = replace(TOLD, control=control, loras=(swap,))
    swapped = make(engine, checkpoint, params)
    seen = look(swapped, SWAPPED)
    assert (seen.colour, seen.background) == ("blue", "red")
    assert seen.overlap > 0.7
    assert difference(make(engine, checkpoint, replace(params, clip_skip=2)), swapped) > 2


@contextmanager
def counted(kind: str) -> Generator[list[int]]:
    """Every run of a network of this class in all of torch, by the batch that it got."""
    batches: list[int] = []

    def note(module: torch.nn.Module, arguments: tuple[Any, ...]) -> None:
        if type(module).__name__ == kind:
            batches.append(len(arguments[0]))

    handle = torch.nn.modules.module.register_module_forward_pre_hook(note)
    try:
        yield batches
    finally:
        handle.remove()


def test_both_prompts_still_go_through_the_unet_together(
    engine: Engine, checkpoint: Path, control: Control
):
    long = TOLD.prompt + ", plain" * 90
    for prompt in (TOLD.prompt, long):
        params = replace(TOLD, prompt=prompt, steps=2)
        with counted("UNetModel") as without:
            make(engine, checkpoint, params)
        with counted("UNetModel") as batches:
            make(engine, checkpoint, replace(params, control=control))
        assert batches == without == [2, 2]


# ---- control maps ----------------------------------------------------------------------------


def control_map(engine: Engine, params: GenerationParams) -> Pixels:
    """The map that a job asks for; of a model that is not there, since none is needed."""
    pictures = engine.generate(replace(params, return_control_map=True), MODEL).images
    assert len(pictures) == params.images
    assert all(difference(pictures[0], other) == 0 for other in pictures)
    return pixels(pictures[0])


def test_the_map_of_a_drawing_is_its_dark_lines_in_white(engine: Engine, control: Control):
    scribble = replace(control, type=ControlType.scribble, image=drawing(SHOWN))
    shown = control_map(engine, replace(TOLD, control=scribble))
    expected = pixels(silhouette(SHOWN).to_pil())
    assert set(np.unique(shown)) == {0, 255}
    assert (np.abs(shown - expected) < 128).mean() > 0.99


def test_the_map_of_edges_is_thin_and_where_the_colours_change(engine: Engine, control: Control):
    large = replace(control, image=source(SHOWN, 128))
    edges = control_map(engine, replace(TOLD, width=128, height=128, images=2, control=large))
    shape = pixels(draw(SHOWN, 128))[..., 0] > 128
    near = np.zeros_like(shape)
    for down, right in product(range(-2, 3), repeat=2):
        near |= shape != np.roll(shape, (down, right), (0, 1))
    white = edges[..., 0] == 255
    assert edges.shape == (128, 128, 3)
    assert 100 < white.sum() < 600
    assert near[white].mean() > 0.95


def test_a_finished_map_is_given_back_in_the_jobs_size(engine: Engine, control: Control):
    finished = replace(control, image=silhouette(SHOWN), image_is_control=True)
    shown = control_map(engine, replace(TOLD, width=128, height=64, control=finished))
    expected = pixels(
        draw(replace(SHOWN, colour="white", background="black"), 64).resize((128, 64))
    )
    assert np.abs(shown - expected).mean() < 10


def test_a_map_of_nothing_is_refused():
    with pytest.raises(InvalidParams, match="return_control_map"):
        build_graph(replace(TOLD, return_control_map=True), MODEL)


# ---- graphs ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("control_type", ControlType)
def test_every_graph_is_valid_to_comfyui(control_type: ControlType, control: Control):
    typed = replace(control, type=control_type, annotator=Path("annotator.pth"))
    starts = (TOLD.source, FromImage(source(SHOWN)))
    for hires, start, finished, only_map in product((False, True), starts, *[(False, True)] * 2):
        params = replace(
            TOLD,
            width=1024,
            height=768,
            images=2,
            hires_fix=hires,
            clip_skip=2,
            source=start,
            control=replace(typed, image_is_control=finished),
            return_control_map=only_map,
            loras=(Lora("one", Path("one.safetensors")), Lora("two", Path("two.safetensors"))),
        )
        assert _problems(build_graph(params, MODEL).to_api()) == ""


def _problems(graph: Mapping[str, Any]) -> str:
    import execution

    valid, error, outputs, errors = asyncio.run(execution.validate_prompt("job", dict(graph), None))
    return "" if valid and outputs else json.dumps([error, errors], default=str)


def test_each_pass_has_a_map_of_its_own_size(control: Control):
    params = replace(TOLD, width=768, height=1024, hires_fix=True, control=control)
    graph = build_graph(params, MODEL)
    sizes = {
        sampler: (scaled["width"], scaled["height"])
        for sampler in ("sampler", "upscale_sampler")
        if (scaled := graph.inputs(f"{sampler}_control_map_source"))
    }
    assert sizes == {"sampler": (504, 672), "upscale_sampler": (768, 1024)}
    for sampler in sizes:
        assert graph.inputs(sampler)["positive"] == (f"{sampler}_control", 0)


@pytest.mark.parametrize("family", [SD2, SDXL], ids=lambda family: family.name)
def test_other_families_are_refused(control: Control, family: Any):
    with pytest.raises(NotServed, match=family.name):
        build_graph(replace(TOLD, control=control), replace(MODEL, family=family))


def test_an_annotator_without_weights_is_refused(control: Control):
    with pytest.raises(ModelMissing, match="depth"):
        build_graph(replace(TOLD, control=replace(control, type=ControlType.depth)), MODEL)


# ---- maps of each seed -----------------------------------------------------------------------


def two_at_once(*_: object) -> int:
    return 2


@pytest.fixture
def shuffled(control: Control) -> Control:
    """The demo's ControlNet stands for the one of this type."""
    return replace(control, type=ControlType.shuffle)


def test_each_image_is_drawn_by_the_map_of_its_own_seed(
    engine: Engine, checkpoint: Path, shuffled: Control, monkeypatch: pytest.MonkeyPatch
):
    """In one batch, in parts of it, and alone."""
    params = replace(TOLD, control=shuffled, steps=4, images=3)
    whole = engine.generate(params, checkpoint).images
    monkeypatch.setattr(MemoryEstimate, "images_at_once", two_at_once)
    parts = engine.generate(replace(params, cfg=TOLD.cfg + 0.01), checkpoint).images
    for picture, part in zip(whole, parts, strict=True):
        alone = make(engine, checkpoint, replace(params, images=1, seed=picture.seed))
        assert difference(picture, alone) <= 2
        assert difference(part, alone) <= 3
    assert difference(whole[0], whole[1]) > 5
    fixed = replace(params, control=replace(shuffled, image_is_control=True))
    assert share_key(params, SD1) is None
    assert share_key(fixed, SD1) is not None


def test_the_maps_of_a_batch_are_those_of_its_seeds(engine: Engine, shuffled: Control):
    params = replace(TOLD, control=shuffled, images=3, seed=5, return_control_map=True)
    maps = [pixels(picture) for picture in engine.generate(params, MODEL).images]
    alone = replace(params, images=1, seed=6)
    assert (pixels(engine.generate(alone, MODEL).images[0]) == maps[1]).all()
    assert (maps[0] != maps[1]).any()
    assert (maps[1] != maps[2]).any()


# ---- other kinds of ControlNets --------------------------------------------------------------


def adapter_file(folder: Path, first: int, scale: float = 0.2) -> Path:
    """A T2I-Adapter for a UNet whose first layer has so many channels, with random weights."""
    from comfy.t2i_adapter.adapter import Adapter_light

    widths = [first, 2 * first, 4 * first, 4 * first]
    random = torch.Generator().manual_seed(1)
    network = Adapter_light(widths, 4, 192)
    state = {
        name: scale * torch.randn(value.shape, generator=random)
        for name, value in network.state_dict().items()
    }
    path = folder / "t2iadapter_color.pth"
    torch.save(state, path)
    return path


@pytest.mark.usefixtures("engine")
def test_an_adapter_steers_the_encoder_of_stable_diffusion_1(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """A narrow one, since the demo model's has fewer blocks."""
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    unet = UNetModel(
        image_size=32,
        in_channels=4,
        out_channels=4,
        model_channels=32,
        num_res_blocks=(2, 2, 2, 2),
        channel_mult=(1, 2, 4, 4),
        transformer_depth=[1] * 6 + [0] * 2,
        transformer_depth_output=[1] * 9 + [0] * 3,
        transformer_depth_middle=1,
        use_spatial_transformer=True,
        context_dim=8,
        num_heads=4,
        dtype=torch.float32,
    )
    for parameter in unet.parameters():
        parameter.data.uniform_(-0.1, 0.1, generator=torch.Generator().manual_seed(2))
    adapter = load_control_net(ModelKey("control_net", adapter_file(tmp_path, 32)))
    adapter.set_cond_hint(torch.rand(1, 3, 128, 128))
    latent, time, text = torch.ones(1, 4, 16, 16), torch.ones(1), torch.ones(1, 4, 8)
    with torch.inference_mode():
        control = adapter.get_control(latent, time, {}, 1, {})
        plain, steered = unet(latent, time, text), unet(latent, time, text, control=control)
    assert not caplog.messages  # ComfyUI only warns of what it can't add
    assert (plain - steered).abs().max() > 1e-4


def test_the_engine_runs_with_an_adapter_and_lets_it_go(
    engine: Engine, checkpoint: Path, control: Control, tmp_path: Path
):
    channels = load_file(checkpoint)["model.diffusion_model.input_blocks.0.0.weight"].shape[0]
    colours = replace(control, type=ControlType.color, model=adapter_file(tmp_path, channels))
    params = replace(TOLD, control=colours, images=2, width=128)
    assert len(engine.generate(params, checkpoint).images) == 2
    assert look(make(engine, checkpoint, TOLD), SHOWN).overlap < 0.4


def test_an_adapter_of_another_model_is_named(
    engine: Engine, checkpoint: Path, control: Control, tmp_path: Path
):
    other = replace(control, type=ControlType.color, model=adapter_file(tmp_path, 16))
    with pytest.raises(AuxiliaryBroken, match=r"t2iadapter_color\.pth is for models with channels"):
        make(engine, checkpoint, replace(TOLD, control=other))


def test_of_a_shuffled_picture_the_control_net_steers_no_place(
    engine: Engine, checkpoint: Path, control: Control, tmp_path: Path
):
    """ComfyUI tells such a file by its name: its outputs are averaged over the picture."""
    averaged = tmp_path / "control_v11e_sd15_shuffle_fp16.safetensors"
    averaged.symlink_to(control.model)
    steered = make(engine, checkpoint, replace(TOLD, control=control))
    params = replace(TOLD, control=replace(control, model=averaged))
    assert (
        look(steered, SHOWN).overlap > look(make(engine, checkpoint, params), SHOWN).overlap + 0.2
    )


# ---- files -----------------------------------------------------------------------------------


def test_what_is_missing_is_named_for_every_type(tmp_path: Path):
    def missing(control_type: ControlType) -> list[str]:
        files = files_of(tmp_path, control_type)
        return [file.path.name for file in files if not file.is_there]

    assert all(map(missing, ControlType))
    together = files_of_all(tmp_path, ControlType)
    assert len(together) == len({file.path for file in together}) == 19 + 15
    for control_type in (ControlType.canny, ControlType.hed):
        path = control_net_file(tmp_path, control_type)
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert missing(ControlType.canny) == missing(ControlType.pyracanny) == []
    assert missing(ControlType.hed) == ["ControlNetHED.pth"]
    assert missing(ControlType.hough) == [
        "control_mlsd_fp16.safetensors",
        "mlsd_large_512_fp32.pth",
    ]
    weights = annotator_file(tmp_path, ControlType.hed)
    assert weights is not None
    weights.parent.mkdir()
    weights.touch()
    assert missing(ControlType.hed) == []


def test_a_file_without_a_known_sha256_has_to_have_its_size(tmp_path: Path):
    path = control_net_file(tmp_path, ControlType.color)
    path.parent.mkdir()
    for size_bytes, is_there in ((0, False), (40_000_000, False), (74_800_000, True)):
        with path.open("wb") as file:
            file.truncate(size_bytes)
        assert files_of(tmp_path, ControlType.color)[0].is_there == is_there


def test_every_type_has_what_draws_its_map():
    from hordelib.pictures.annotators import READERS
    from hordelib.pictures.plain_maps import PLAIN, SEEDED

    assert set(CONTROL_TYPES) == set(ControlType) == {*CLASSIC, *EXTENDED}
    assert (len(CLASSIC), len(EXTENDED)) == (9, 25)
    weightless = {control for control, row in CONTROL_TYPES.items() if not row.weights}
    assert weightless == {*PLAIN, *SEEDED}
    assert len(weightless) == 13
    assert {control for control, row in CONTROL_TYPES.items() if row.is_seeded} == set(SEEDED)
    assert set(READERS) == set(ControlType) - weightless


def test_the_demo_control_net_is_complete_and_all_that_was_trained_is_in_it(
    engine: Engine,
    checkpoint: Path,
    control: Control,
    control_net: Path,
    caplog: pytest.LogCaptureFixture,
):
    with caplog.at_level(logging.WARNING):
        make(engine, checkpoint, replace(TOLD, control=control, steps=1))
    assert caplog.text == ""
    written = load_file(control_net)
    for key, value in load_file(TRAINED_CONTROL).items():
        live = written[f"control_model.{key}"]
        assert torch.equal(live[live != 0].sort().values, value[value != 0].sort().values), key


@pytest.fixture(scope="session")
def difference_net(
    control_net: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The demo ControlNet as the horde's newer ones are: without the base model's weights."""
    base = load_file(checkpoint)
    state = load_file(control_net)
    for key, value in state.items():
        own = base.get(key.replace("control_model.", "model.diffusion_model."))
        state[key] = value if own is None else (value.float() - own.float()).half()
    path = tmp_path_factory.mktemp("controlnet") / "diff_demo.safetensors"
    save_file({**state, "difference": torch.zeros(1)}, path)
    return path


def test_a_control_net_of_differences_is_added_to_the_jobs_model(
    engine: Engine, checkpoint: Path, control: Control, difference_net: Path
):
    whole = make(engine, checkpoint, replace(TOLD, control=control))
    added = make(engine, checkpoint, replace(TOLD, control=replace(control, model=difference_net)))
    assert difference(whole, added) <= 8  # two roundings to half precision


def test_a_control_net_of_differences_gets_the_jobs_loras(
    engine: Engine, checkpoint: Path, models: Path, control: Control, difference_net: Path
):
    """It is to be a copy of the very encoder that it steers; a whole one is left as it is."""
    lora = (Lora("swap", ensure_lora(models), clip=0.0),)
    whole = replace(TOLD, control=control)
    added = replace(TOLD, control=replace(control, model=difference_net))
    before = make(engine, checkpoint, added)
    patched = make(engine, checkpoint, replace(added, loras=lora))
    assert difference(patched, make(engine, checkpoint, replace(whole, loras=lora))) > 8
    assert look(patched, SWAPPED).overlap > 0.7
    assert difference(make(engine, checkpoint, added), before) == 0


def test_files_that_are_no_control_net_are_named_and_the_next_job_runs(
    engine: Engine, checkpoint: Path, control: Control, difference_net: Path, tmp_path: Path
):
    garbage = tmp_path / "garbage.safetensors"
    garbage.write_bytes(b"\xff" * 5000)
    renamed = tmp_path / "canny.safetensors"
    renamed.symlink_to(difference_net)
    other = tmp_path / "checkpoint.safetensors"
    other.symlink_to(checkpoint)
    for path, reason in (
        (garbage, "no model file: .*; fetch it again"),
        (other, "no ControlNet"),
        (renamed, "rename it to diff_canny"),
    ):
        with pytest.raises(AuxiliaryBroken, match=reason) as caught:
            make(engine, checkpoint, replace(TOLD, control=replace(control, model=path)))
        assert path.name in str(caught.value)
    assert make(engine, checkpoint, replace(TOLD, steps=1, control=control))


def test_a_control_net_for_another_family_is_refused(
    engine: Engine, checkpoint: Path, control: Control, tmp_path: Path
):
    """As one for Stable Diffusion 2 would be, which reads texts 1024 wide."""
    state = load_file(control.model)
    for key in [key for key in state if ".attn2.to_k." in key or ".attn2.to_v." in key]:
        state[key] = torch.zeros(320, 1024)
    path = tmp_path / "control_canny_sd2.safetensors"
    save_file(state, path)
    with pytest.raises(AuxiliaryBroken, match="text width of 1024"):
        make(engine, checkpoint, replace(TOLD, control=replace(control, model=path)))
