"""Transparent pictures on real ComfyUI: what is seen through, and what stays as it was."""

from __future__ import annotations

import io
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from hordelib import Engine, GenerationParams
from hordelib.comfyui.loaders import load
from hordelib.demo_model import ensure_lora, ensure_transparency
from hordelib.demo_model.shapes import Scene
from hordelib.errors import AuxiliaryBroken, ModelBroken, NotNumbers
from hordelib.files.model import Model
from hordelib.files.model_key import ModelKey
from hordelib.graph import Link
from hordelib.graphs.build import build_graph
from hordelib.job.batching import Member
from hordelib.job.families import SD1, SDXL, Family
from hordelib.job.images import Picture, SourceImage
from hordelib.job.params import Inpaint, Lora, QrCode, Transparency
from hordelib.job.samplers import SAMPLERS
from hordelib.pictures.transparent_unet import LEVELS, TransparentUNet, build, uncover
from tests.support.family_files import model_of
from tests.support.looks import look, pixels
from tests.support.whole_checkpoint import load_whole

RING = Scene("ring", "red", "white")
SMALL = GenerationParams(
    prompt=RING.caption,
    width=64,
    height=64,
    seed=3,
    steps=10,
    cfg=4.0,
    sampler=SAMPLERS["k_euler"],
)
WIDTH, READS = 320, 768  # of the demo model's attention layers
RANK = 4


@pytest.fixture(scope="module")
def files(models: Path) -> Transparency:
    """The demo model's: what is white becomes transparent."""
    return Transparency(*ensure_transparency(models))


@pytest.fixture
def quick(files: Transparency) -> GenerationParams:
    return replace(SMALL, transparent=files, steps=2)


def opacity(picture: Picture | Image.Image) -> NDArray[np.int16]:
    image = picture.to_pil() if isinstance(picture, Picture) else picture
    return np.asarray(image.getchannel("A"), dtype=np.int16)


def differ(one: Picture, other: Picture) -> int:
    both = (np.asarray(each.to_pil(), dtype=np.int16) for each in (one, other))
    first, second = both
    return int(np.abs(first - second).max())


def test_a_ring_has_a_hole_that_one_sees_through_also_with_a_lora(
    engine: Engine, checkpoint: Path, files: Transparency, models: Path
):
    """The LoRA swaps red and blue, so the patches have to leave it where it is."""
    lora = Lora("demo", ensure_lora(models), clip=0.0)
    params = replace(SMALL, transparent=files, loras=(lora,))
    made = engine.generate(params, checkpoint)
    with Image.open(io.BytesIO(made.images[0].to_webp())) as sent:
        seen = opacity(sent)
        assert look(sent, replace(RING, colour="blue")).colour == "blue"
    assert seen[29:35, 29:35].max() < 10  # the hole
    assert seen[:8].max() < 10  # around it
    assert np.median(seen[30:34, 15:17]) > 250  # the ring itself
    assert made.notes == ()


def test_all_networks_are_on_loan_while_they_compute(
    engine: Engine, checkpoint: Path, quick: GenerationParams
):
    engine.generate(replace(quick, seed=99), checkpoint)
    assert engine._loaded is not None
    held = {key.kind for key in engine._loaded.models.held}
    assert held >= {"layer_patches", "attention_sharing", "transparent_decoder"}
    plan = engine._loaded.models.plan(quick, SD1)
    bytes_of = {key.kind: plan.working_bytes(key, 1) for key in engine._loaded.models.held}
    assert bytes_of["transparent_decoder"] > 0
    assert bytes_of["layer_patches"] == 0


def test_the_job_after_a_transparent_one_is_as_if_there_had_been_none(
    engine: Engine, checkpoint: Path, quick: GenerationParams, tmp_path: Path
):
    plain = replace(quick, transparent=None)
    assert quick.transparent is not None
    patches = write_patches(tmp_path / "patches.safetensors", strength=0.5)
    changed = replace(quick, transparent=replace(quick.transparent, patches=patches))
    before = engine.generate(plain, checkpoint).images
    between = engine.generate(changed, checkpoint).images
    assert np.abs(pixels(before[0]) - pixels(between[0])[..., :3]).max() > 8
    assert engine.generate(plain, checkpoint).images == before


def test_image_i_of_a_batch_own_or_shared_is_the_picture_of_its_seed(
    engine: Engine, checkpoint: Path, quick: GenerationParams
):
    jobs = [
        replace(quick, sampler=SAMPLERS["k_euler_a"], images=2),
        replace(quick, sampler=SAMPLERS["k_euler_a"], prompt="a green heart", seed=77),
    ]
    members = [Member(f"job {i}", each) for i, each in enumerate(jobs)]
    together = engine.generate_together(members, Model.of_checkpoint(checkpoint))
    for params, generation in zip(jobs, together, strict=True):
        for image in generation.images:
            single = replace(params, images=1, seed=image.seed)
            assert differ(image, engine.generate(single, checkpoint).images[0]) <= 2


def test_what_is_kept_under_a_mask_is_opaque(
    engine: Engine, checkpoint: Path, quick: GenerationParams
):
    white = SourceImage.of_pil(Image.new("RGB", (64, 64), "white"))
    mask = Image.new("L", (64, 64))
    mask.paste(255, (32, 0, 64, 64))
    source = Inpaint(white, SourceImage.of_pil(mask, "L"))
    (picture,) = engine.generate(replace(quick, source=source), checkpoint).images
    assert opacity(picture)[:, :30].min() == 255
    assert pixels(picture)[:, :30].min() == 255  # also the colours
    assert opacity(picture)[:, 34:].min() < 128


# ---- the graph -------------------------------------------------------------------------------

LARGE = GenerationParams(prompt="a", width=1536, height=1536, hires_fix=True)
FILES = Transparency(Path("patches"), Path("decoder"))


@pytest.mark.parametrize(
    ("family", "params"),
    [
        (SD1, LARGE),
        (SDXL, LARGE),
        (SDXL, replace(LARGE, qr_code=QrCode(text="a", model=Path("qr")))),
    ],
    ids=["SD1", "SDXL", "QR code"],
)
def test_every_sampler_has_the_patches_after_the_loras(family: Family, params: GenerationParams):
    loras = (Lora("mine", Path("lora")),)
    graph = build_graph(replace(params, transparent=FILES, loras=loras), model_of(family))
    last = "attention_sharing" if family is SD1 else "layer_patches"
    samplers = [title for title in graph.titles if "Sampler" in graph.class_type(title)]
    assert len(samplers) > 1
    assert {graph.inputs(title)["model"] for title in samplers} == {Link(last, 0)}
    assert graph.inputs("layer_patches")["model"] == Link("lora_0", 0)
    assert graph.inputs("output")["images"] == Link("transparent", 0)
    decoded = graph.inputs("transparent")
    assert decoded["samples"] == graph.inputs("decode")["samples"]


# ---- the UNet's patches ----------------------------------------------------------------------


def write_patches(path: Path, strength: float = 1.0) -> Path:
    """For the demo model's four transformers, at random."""
    generator = torch.Generator().manual_seed(5)

    def noise(*shape: int, scale: float) -> Tensor:
        return torch.randn(*shape, generator=generator) * scale * strength

    state: dict[str, Tensor] = {}
    for number in range(8):
        layer = f"hookers.layers.{number}"
        reads = READS if number % 2 else WIDTH
        for projection, into in (("q", WIDTH), ("k", reads), ("v", reads), ("out", WIDTH)):
            lora = f"{layer}.to_{projection}_lora.0"
            state[f"{lora}.up.weight"] = noise(WIDTH, RANK, scale=0.3)
            state[f"{lora}.down.weight"] = noise(RANK, into, scale=0.1)
        for part in "niqkvo":
            shape = (WIDTH,) if part == "n" else (WIDTH, WIDTH)
            state[f"{layer}.temporal_{part}.weight"] = noise(*shape, scale=0.1)
            state[f"{layer}.temporal_{part}.bias"] = noise(WIDTH, scale=0.1)
    save_file(state, path)
    return path


@contextmanager
def spelled_out(unet: Any, state: dict[str, Tensor]) -> Generator[None]:
    """The UNet with LayerDiffuse's layers as they are defined, step by step, for one frame."""
    places = [f"input_blocks.3.1.{_BLOCK}", f"output_blocks.0.1.{_BLOCK}"]
    places += [f"output_blocks.1.1.{_BLOCK}", f"middle_block.1.{_BLOCK}"]
    names = [f"{place}.{kind}" for place in places for kind in ("attn1", "attn2")]
    undo: list[Any] = []
    for number, name in enumerate(names):
        attention = unet.get_submodule(name)
        part = {k.split(".", 3)[3]: v for k, v in state.items() if k.split(".")[2] == str(number)}
        for projection in ("q", "k", "v", "out"):
            layer = (
                attention.to_out[0]
                if projection == "out"
                else getattr(attention, f"to_{projection}")
            )
            lora = f"to_{projection}_lora.0"
            added = part[f"{lora}.up.weight"] @ part[f"{lora}.down.weight"]
            undo.append(layer.register_forward_hook(partial(_add, added)))
        undo.append(attention.register_forward_hook(partial(_shared, part)))
    yield
    for hook in undo:
        hook.remove()


_BLOCK = "transformer_blocks.0"


def _add(weight: Tensor, _layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return output + inputs[0] @ weight.T


def _shared(
    part: dict[str, Tensor], _layer: Any, inputs: tuple[Tensor, ...], attended: Tensor
) -> Tensor:
    def linear(name: str, x: Tensor) -> Tensor:
        return F.linear(x, part[f"temporal_{name}.weight"], part[f"temporal_{name}.bias"])

    x = inputs[0] + attended
    norm = part["temporal_n.weight"], part["temporal_n.bias"]
    x = linear("i", F.layer_norm(x, x.shape[-1:], *norm, eps=1e-6))
    frames = x.unsqueeze(2)  # one frame of each token attends to itself
    q, k, v = (linear(name, frames) for name in "qkv")
    return attended + linear("o", F.scaled_dot_product_attention(q, k, v)[:, :, 0])


@pytest.mark.usefixtures("engine")
def test_the_patched_unet_is_that_of_the_formulas(checkpoint: Path, tmp_path: Path):
    from hordelib.comfyui.nodes.transparency import DreamerAttentionSharing, DreamerLayerPatches

    path = write_patches(tmp_path / "patches.safetensors")
    model = load_whole(checkpoint).model
    keys = [ModelKey(kind, path) for kind in ("layer_patches", "attention_sharing")]
    context: Any = SimpleNamespace(models={key: load(key) for key in keys})
    (patched,) = DreamerLayerPatches().apply(model, str(path), context)
    (patched,) = DreamerAttentionSharing().apply(patched, str(path), context)

    generator = torch.Generator().manual_seed(1)
    x, text = (torch.randn(*s, generator=generator) for s in ((2, 4, 8, 8), (2, 77, READS)))
    unet = model.model.diffusion_model.float()

    def run(patcher: Any) -> Tensor:
        patcher.patch_model(torch.device("cpu"))
        options = dict(patcher.model_options["transformer_options"])
        with torch.inference_mode():
            made = unet(x, torch.tensor([500.0, 20.0]), context=text, transformer_options=options)
        patcher.unpatch_model(torch.device("cpu"))
        return made

    ours, plain = run(patched), run(model)
    with spelled_out(unet, _read(path)):
        wanted = run(model)
    assert (wanted - plain).abs().max() > 0.1
    assert (ours - wanted).abs().max() < 1e-4
    assert torch.equal(run(model), plain)


def _read(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(path)


@pytest.mark.usefixtures("engine")
def test_differences_of_weights_are_added_and_those_of_another_family_refused(
    checkpoint: Path, tmp_path: Path
):
    from hordelib.comfyui.nodes.transparency import DreamerLayerPatches

    model = load_whole(checkpoint).model
    name = "diffusion_model.out.2.weight"
    before = model.model.state_dict()[name].clone()
    path = tmp_path / "layer.safetensors"
    save_file({f"{name}::diff::0": torch.ones_like(before)}, path)
    key = ModelKey("layer_patches", path)
    context: Any = SimpleNamespace(models={key: load(key)})
    (patched,) = DreamerLayerPatches().apply(model, str(path), context)
    patched.patch_model(torch.device("cpu"))
    assert torch.equal(model.model.state_dict()[name], before + 1)
    patched.unpatch_model(torch.device("cpu"))

    save_file({"diffusion_model.input_blocks.8.0.weight::diff::0": before}, path)
    context.models[key] = load(key)
    with pytest.raises(AuxiliaryBroken, match=r"layer\.safetensors .* 0 of 1 parts fit; fetch"):
        DreamerLayerPatches().apply(model, str(path), context)


@pytest.mark.usefixtures("engine")
def test_what_an_inpainting_model_sees_beside_the_latent_has_no_difference():
    from hordelib.comfyui.nodes.transparency import _padded

    difference = torch.rand(8, 4, 3, 3)
    kind, (padded,) = _padded(("diff", (difference,)), (8, 9, 3, 3))
    assert (kind, tuple(padded.shape)) == ("diff", (8, 9, 3, 3))
    assert torch.equal(padded[:, :4], difference)
    assert not padded[:, 4:].any()


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("kind", ["layer_patches", "attention_sharing", "transparent_decoder"])
@pytest.mark.parametrize(
    "tensors",
    [
        {"something": torch.zeros(4)},
        {"conv_in.weight": torch.zeros(16, 3, 3, 3)},
        {f"down_blocks.{i}.resnets.0.conv1.weight": torch.zeros(10**5, 1) for i in range(LEVELS)}
        | {"conv_in.weight": torch.zeros(10**5, 1)},
        {"hookers.layers.0.to_q_lora.0.up.weight": torch.zeros(4, 2)},
        {"hookers.layers.0.temporal_n.weight": torch.zeros(4)},
    ],
    ids=["nothing", "half a decoder", "too wide", "half a LoRA", "a norm alone"],
)
def test_a_file_of_something_else_is_named(tmp_path: Path, kind: str, tensors: dict[str, Tensor]):
    path = tmp_path / "other.safetensors"
    save_file(tensors, path)
    with pytest.raises(ModelBroken, match=r"other\.safetensors"):
        load(ModelKey(kind, path))


# ---- the decoder -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def network() -> TransparentUNet:
    """At random."""
    torch.set_rng_state(torch.Generator().manual_seed(3).get_state())
    return TransparentUNet([8, 8, 16, 16, 16, 24, 16]).eval()


def test_a_picture_that_is_turned_or_mirrored_is_uncovered_as_the_other_one(
    network: TransparentUNet,
):
    generator = torch.Generator().manual_seed(1)
    picture, latent = (torch.rand(*s, generator=generator) for s in ((3, 64, 128), (4, 8, 16)))
    with torch.inference_mode():
        plain = uncover(network, picture, latent, "")
        turned = uncover(network, picture.rot90(1, (1, 2)), latent.rot90(1, (1, 2)), "")
        mirrored = uncover(network, picture.flip(2), latent.flip(2), "")
        other = uncover(network, picture, latent + 1, "")
    assert plain.shape == (4, 64, 128)
    assert (turned.rot90(-1, (1, 2)) - plain).abs().max() < 1e-5
    assert (mirrored.flip(2) - plain).abs().max() < 1e-5
    assert (other - plain).abs().max() > 1e-4


def test_the_widths_are_those_of_the_file(network: TransparentUNet):
    state = network.state_dict()
    again = build(state)
    again.load_state_dict(state)
    assert again.state_dict().keys() == state.keys()


def test_what_is_no_number_is_told_by_the_files_name(network: TransparentUNet):
    broken = build(network.state_dict())
    broken.load_state_dict(network.state_dict())
    torch.nn.init.constant_(broken.conv_out.weight, float("inf"))  # which a clamp would hide
    with torch.inference_mode(), pytest.raises(NotNumbers, match=r"decoder\.safetensors"):
        uncover(broken, torch.zeros(3, 64, 64), torch.zeros(4, 8, 8), "decoder.safetensors")


@pytest.mark.usefixtures("engine")
def test_a_decoder_of_sixteen_bits_tries_again_with_thirty_two(files: Transparency):
    from hordelib.comfyui.nodes.full_precision import full_precision, narrow_of

    decoder = load(ModelKey("transparent_decoder", files.decoder))
    assert not list(narrow_of({"decoder": [decoder]}))  # whatever its file has
    decoder.network.half()
    decoder.dtype = torch.float16
    with full_precision(narrow_of({"decoder": [decoder]})):
        assert decoder.network.conv_in.weight.dtype is torch.float32
    assert decoder.network.conv_in.weight.dtype is torch.float16


@pytest.mark.usefixtures("engine")
def test_a_seamless_picture_is_uncovered_around_its_edges(network: TransparentUNet, tmp_path: Path):
    from hordelib.comfyui.nodes.tiling import circular

    path = tmp_path / "decoder.safetensors"
    save_file(network.state_dict(), path)
    patcher = circular(load(ModelKey("transparent_decoder", path)).patcher)
    patcher.patch_model(torch.device("cpu"))
    picture, latent = torch.rand(3, 64, 64), torch.rand(4, 8, 8)
    moved = picture.roll(64 // 2, 2), latent.roll(8 // 2, 2)
    with torch.inference_mode():
        plain, rolled = (
            uncover(patcher.model, picture, latent, ""),
            uncover(patcher.model, *moved, ""),
        )
    middle = (rolled.roll(-64 // 2, 2) - plain).abs()
    patcher.unpatch_model(torch.device("cpu"))
    with torch.inference_mode():
        edged = uncover(patcher.model, *moved, "").roll(-64 // 2, 2)
    assert middle.mean() < (edged - plain).abs().mean()
