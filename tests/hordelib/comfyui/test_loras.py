"""LoRAs on real ComfyUI: what they change, what they leave alone, and what is said of misfits."""

from __future__ import annotations

import gc
import importlib
import logging
from collections.abc import Callable
from dataclasses import replace
from math import prod
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from hordelib import Engine, GenerationParams
from hordelib.comfyui.loaders.loras import load_lora
from hordelib.demo_model import ensure_control_net, ensure_lora
from hordelib.demo_model.shapes import Scene, draw
from hordelib.errors import GenerationFailed
from hordelib.files.model import Model
from hordelib.files.model_key import ModelKey
from hordelib.graph import Graph, Link
from hordelib.graphs.build import build_graph
from hordelib.job.control_types import ControlType
from hordelib.job.images import Picture, SourceImage
from hordelib.job.notes import GenMetadata, MetadataType, MetadataValue
from hordelib.job.params import Control, Lora
from hordelib.job.samplers import SAMPLERS
from tests.support.bounds import bounded
from tests.support.looks import difference, look
from tests.support.whole_checkpoint import Whole, load_whole

PLAIN = Scene("circle", "red", "green")
SMALL = GenerationParams(
    prompt=PLAIN.caption,
    width=64,
    height=64,
    seed=3,
    steps=10,
    cfg=4.0,
    sampler=SAMPLERS["k_euler"],
)
QUICK = replace(SMALL, steps=2)
StateDict = dict[str, Tensor]
ONE = torch.ones(4, 2)


@pytest.fixture(scope="module")
def lora(models: Path) -> Lora:
    """The demo model's: its UNet part swaps red and blue, its text part circles and squares."""
    return Lora("demo", ensure_lora(models))


@pytest.mark.parametrize(
    ("model", "clip", "scene"),
    [
        (1.0, 0.0, Scene("circle", "blue", "green")),
        (0.0, 1.0, Scene("square", "red", "green")),
        (1.0, 1.0, Scene("square", "blue", "green")),
    ],
)
def test_a_lora_changes_the_unet_and_the_text_encoder_each_by_its_strength(
    engine: Engine, checkpoint: Path, lora: Lora, model: float, clip: float, scene: Scene
):
    params = replace(SMALL, loras=(replace(lora, model=model, clip=clip),))
    made = engine.generate(params, checkpoint)
    seen = look(made.images[0], scene)
    assert (seen.colour, seen.background, made.notes) == (scene.colour, "green", ())
    assert seen.overlap > look(made.images[0], replace(scene, shape=_other(scene.shape))).overlap


def _other(shape: str) -> str:
    return "circle" if shape == "square" else "square"


def test_the_job_after_a_lora_is_as_if_there_had_been_none(
    engine: Engine, checkpoint: Path, lora: Lora
):
    before = engine.generate(QUICK, checkpoint).images
    changed = engine.generate(replace(QUICK, loras=(lora,)), checkpoint).images
    weaker = replace(lora, model=0.5, clip=0.5)
    between = engine.generate(replace(QUICK, loras=(weaker,)), checkpoint).images
    assert len({before, changed, between}) == 3
    assert engine.generate(replace(QUICK, loras=(lora,)), checkpoint).images == changed
    assert engine.generate(QUICK, checkpoint).images == before


def test_five_loras_add_up(engine: Engine, checkpoint: Path, lora: Lora):
    fifth = replace(lora, model=0.2, clip=0.0)
    together = engine.generate(replace(SMALL, loras=(fifth,) * 5), checkpoint).images[0]
    once = replace(lora, clip=0.0)
    alone = engine.generate(replace(SMALL, loras=(once,)), checkpoint).images[0]
    assert difference(together, alone) <= 8
    assert look(together, replace(PLAIN, colour="blue")).colour == "blue"


def test_nothing_stays_of_loras_that_are_gone(
    engine: Engine, checkpoint: Path, lora: Lora, caplog: pytest.LogCaptureFixture
):
    """DPM fast is kept by a cycle, and with it both clones of the model, until they are collected.

    ComfyUI would collect all garbage then with each model that it loads, ever after, and says so.
    """
    from comfy.model_management import current_loaded_models

    both = replace(QUICK, sampler=SAMPLERS["k_dpm_fast"], loras=(lora, replace(lora, model=0.5)))
    engine.generate(both, checkpoint)
    assert engine._loaded is not None
    engine._loaded.executor.forget()  # as for each job with others
    gc.collect()
    with caplog.at_level(logging.INFO, "comfyui"):
        engine.generate(QUICK, checkpoint)
    assert not [each for each in current_loaded_models if each.is_dead()]
    assert "memory leak" not in caplog.text


def test_a_negative_strength_is_the_opposite(engine: Engine, checkpoint: Path, lora: Lora):
    both = (replace(lora, clip=0.0), replace(lora, model=-1.0, clip=0.0))
    plain, undone = (
        engine.generate(replace(QUICK, loras=loras), checkpoint).images[0] for loras in ((), both)
    )
    assert difference(plain, undone) <= 2


def test_a_lora_of_no_strength_is_not_even_read(engine: Engine, checkpoint: Path, tmp_path: Path):
    absent = Lora("absent", tmp_path / "absent.safetensors", model=0.0, clip=0.0)
    params = replace(QUICK, loras=(absent,))
    assert engine.generate(params, checkpoint).images == engine.generate(QUICK, checkpoint).images


def test_a_loras_missing_file_is_named(engine: Engine, checkpoint: Path, tmp_path: Path):
    absent = Lora("absent", tmp_path / "absent.safetensors")
    with pytest.raises(GenerationFailed, match=r"absent\.safetensors"):
        engine.generate(replace(QUICK, loras=(absent,)), checkpoint)


# ---- on every graph --------------------------------------------------------------------------


def _readers(graph: Graph, link: Link) -> set[str]:
    return {title for title, _ in graph.readers(link)}


def test_everything_in_a_graph_reads_the_model_and_the_text_encoder_after_the_loras(
    checkpoint: Path, lora: Lora
):
    params = replace(
        SMALL,
        width=1024,
        height=1024,
        hires_fix=True,
        clip_skip=2,
        tiling=True,
        loras=(lora, lora),
        embeddings_folder=Path("ti"),
    )
    graph = build_graph(params, Model.of_checkpoint(checkpoint))
    assert _readers(graph, Link("checkpoint", 0)) == {"lora_0"}
    assert _readers(graph, Link("checkpoint", 1)) == {"lora_0"}
    assert _readers(graph, Link("lora_0", 0)) == _readers(graph, Link("lora_0", 1)) == {"lora_1"}
    assert _readers(graph, Link("lora_1", 0)) == {"tiled_model"}
    assert _readers(graph, Link("lora_1", 1)) == {"embeddings"}
    encoders = {"prompt", "negative_prompt", "empty_prompt"}
    assert _readers(graph, Link("clip_skip", 0)) == encoders
    assert _readers(graph, Link("tiled_model", 0)) == {"sampler", "upscale_sampler"}


# ---- files that do not fit -------------------------------------------------------------------


def _foreign(state: StateDict) -> StateDict:
    """As for another family: same names, a wider text encoder."""
    return {
        name: value.repeat(1, 2) if value.shape[-1:] == (768,) else value
        for name, value in state.items()
    }


def _of_nothing_known(state: StateDict) -> StateDict:
    return {
        name.replace("lora_unet_", "lora_unet_x").replace("te_", "tx_"): v
        for name, v in state.items()
    }


def _for_flux(state: StateDict) -> StateDict:
    """Nothing but the text encoder is the same."""
    strange = {f"lora_unet_double_blocks_{i}_img_attn_qkv.alpha": torch.ones(1) for i in range(30)}
    return {name: value for name, value in state.items() if "lora_te_" in name} | strange


def _without_halves(state: StateDict) -> StateDict:
    return {name: value for name, value in state.items() if ".lora_down" not in name}


def _not_numbers(state: StateDict) -> StateDict:
    return {name: value * torch.nan for name, value in state.items()}


def _vectors(_state: StateDict) -> StateDict:
    return {"emb_params": torch.ones(1, 768)}


MISFITS: dict[str, tuple[Callable[[StateDict], StateDict], MetadataValue]] = {
    "of another family": (_foreign, MetadataValue.BASELINE_MISMATCH),
    "of nothing known": (_of_nothing_known, MetadataValue.BASELINE_MISMATCH),
    "for Flux": (_for_flux, MetadataValue.BASELINE_MISMATCH),
    "of halves": (_without_halves, MetadataValue.PARSE_FAILED),
    "of no numbers": (_not_numbers, MetadataValue.PARSE_FAILED),
    "of vectors": (_vectors, MetadataValue.PARSE_FAILED),
}


@pytest.fixture(scope="module")
def loaded(engine: Engine, checkpoint: Path) -> Whole:
    """The demo model in ComfyUI's objects; `engine` has started ComfyUI."""
    return load_whole(checkpoint)


def notes(path: Path, loaded: Whole) -> tuple[GenMetadata, ...]:
    from hordelib.comfyui.nodes.loras import fit_to_model

    weights = load_lora(ModelKey("lora", path))
    return fit_to_model(weights, loaded.model, loaded.clip).notes("Misfit")


@pytest.mark.parametrize(("change", "value"), MISFITS.values(), ids=MISFITS)
def test_a_lora_that_does_not_fit_is_disclosed(
    loaded: Whole,
    lora: Lora,
    tmp_path: Path,
    change: Callable[[StateDict], StateDict],
    value: MetadataValue,
):
    path = tmp_path / "changed.safetensors"
    save_file(change(load_file(lora.path)), path)
    assert notes(path, loaded) == (GenMetadata(MetadataType.LORA, value, "Misfit"),)


@pytest.mark.parametrize("content", [b"", b"\xff" * 5000, b"<html>not found</html>"])
def test_a_file_that_is_no_lora_is_disclosed(loaded: Whole, tmp_path: Path, content: bytes):
    path = tmp_path / "broken.safetensors"
    path.write_bytes(content)
    failed = GenMetadata(MetadataType.LORA, MetadataValue.PARSE_FAILED, "Misfit")
    assert notes(path, loaded) == (failed,)


def test_misfits_are_left_out_and_the_others_are_applied(
    engine: Engine, checkpoint: Path, lora: Lora, tmp_path: Path
):
    foreign, broken = tmp_path / "foreign.safetensors", tmp_path / "broken.safetensors"
    save_file(_foreign(load_file(lora.path)), foreign)
    broken.write_bytes(b"<html>not found</html>")
    loras = (Lora("Foreign", foreign), lora, Lora("Broken", broken))
    made = engine.generate(replace(QUICK, loras=loras), checkpoint)
    assert [(note.value, note.ref) for note in made.notes] == [
        (MetadataValue.BASELINE_MISMATCH, "Foreign"),
        (MetadataValue.PARSE_FAILED, "Broken"),
    ]
    assert made.images == engine.generate(replace(QUICK, loras=(lora,)), checkpoint).images


def test_a_lora_that_fits_in_part_is_applied_and_told(
    engine: Engine, checkpoint: Path, lora: Lora, tmp_path: Path
):
    state = load_file(lora.path)
    strange = {f"lora_unet_strange_{i}.lora_up.weight": torch.ones(4, 2) for i in range(64)}
    path = tmp_path / "part.safetensors"
    save_file(state | strange, path)
    params = replace(QUICK, loras=(Lora("Part", path),))
    made = engine.generate(params, checkpoint)
    assert [note.ref for note in made.notes] == [
        "LoRA Part fits in part: 10 of 74 parts fit, 0 can't be applied"
    ]
    assert engine.generate(params, checkpoint).notes == made.notes  # nothing is computed again
    assert made.images == engine.generate(replace(QUICK, loras=(lora,)), checkpoint).images


# ---- other kinds of adapters -----------------------------------------------------------------

PART = "lora_unet_middle_block_1_transformer_blocks_0_attn2_to_v"  # 320 x 768
KINDS = {
    "lora": {"lora_up.weight": (320, 4), "lora_down.weight": (4, 768)},
    "lora with a core": {
        "lora_up.weight": (320, 4),
        "lora_mid.weight": (4, 4, 1, 1),
        "lora_down.weight": (4, 768),
    },
    "loha": {
        "hada_w1_a": (320, 4),
        "hada_w1_b": (4, 768),
        "hada_w2_a": (320, 4),
        "hada_w2_b": (4, 768),
    },
    "lokr": {"lokr_w1": (8, 8), "lokr_w2": (40, 96)},
    "lokr in factors": {"lokr_w1": (8, 8), "lokr_w2_a": (40, 4), "lokr_w2_b": (4, 96)},
    "glora": {
        "a1.weight": (768, 4),
        "a2.weight": (4, 768),
        "b1.weight": (320, 4),
        "b2.weight": (4, 768),
    },
    "plain difference": {"diff": (320, 768)},
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_adapter_is_judged_by_its_shape(loaded: Whole, kind: str):
    from hordelib.comfyui.nodes.loras import fit_to_model

    fitting, wide = (
        {
            f"{PART}.{name}": torch.ones([2 * n if n in (768, 96) and grown else n for n in shape])
            for name, shape in KINDS[kind].items()
        }
        for grown in (False, True)
    )
    fits, misfits = (fit_to_model(state, loaded.model, loaded.clip) for state in (fitting, wide))
    assert (fits.parts, len(fits.patches), fits.is_usable) == (1, 1, True)
    assert (misfits.parts, misfits.misshapen, misfits.is_usable) == (1, 1, False)


LAYER = "middle_block.1.transformer_blocks.0.attn2.to_v"
DIFFUSERS = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.processor.to_v"


@pytest.mark.parametrize(
    ("part", "up", "down"),
    [
        (f"diffusion_model.{LAYER}", ".lora_up.weight", ".lora_down.weight"),
        (f"diffusion_model.{LAYER}", ".lora_B.weight", ".lora_A.weight"),
        (f"diffusion_model.{LAYER}", ".lora_B.default.weight", ".lora_A.default.weight"),
        (DIFFUSERS.replace(".processor", ""), ".lora_B.weight", ".lora_A.weight"),
        (DIFFUSERS.replace(".processor", ""), ".lora.up.weight", ".lora.down.weight"),
        (DIFFUSERS, "_lora.up.weight", "_lora.down.weight"),
        (DIFFUSERS, ".lora.up.weight", ".lora.down.weight"),
        (
            DIFFUSERS,
            ".lora_linear_layer.up.weight",
            ".lora_linear_layer.down.weight",
        ),
    ],
)
def test_each_trainers_names_are_understood(loaded: Whole, part: str, up: str, down: str):
    from hordelib.comfyui.nodes.loras import fit_to_model

    state = {part + up: torch.ones(320, 4), part + down: torch.ones(4, 768)}
    fit = fit_to_model(state, loaded.model, loaded.clip)
    assert list(fit.patches) == [f"diffusion_model.{LAYER}.weight"]


def test_diffusers_name_of_an_attentions_output_is_understood(loaded: Whole):
    from hordelib.comfyui.nodes.loras import fit_to_model

    part = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0"
    state = {
        f"{part}.lora_B.weight": torch.ones(320, 4),
        f"{part}.lora_A.weight": torch.ones(4, 320),
    }
    assert fit_to_model(state, loaded.model, loaded.clip).notes("Current") == ()


# ---- files of strangers ----------------------------------------------------------------------


QUERY = PART.replace("to_v", "to_q")  # which the demo model's LoRA leaves alone


def spoilt(name: str, part: str) -> StateDict:
    """What is changed about one part of the demo model's LoRA, or added to it."""
    ones = torch.ones
    return {
        "hada of one axis": {f"{part}.hada_{n}": ones(4) for n in ("w1_a", "w1_b", "w2_a", "w2_b")},
        "scalar lora_up": {f"{part}.lora_up.weight": torch.tensor(1.0)},
        "diff_b of another shape": {f"{part}.diff_b": ones(7)},
        "diff_b of no layer": {f"{part}.diff_b": ones(320)},
        "two ranks": {f"{part}.lora_down.weight": ones(4, 768)},
        "no rank": {
            f"{part}.lora_up.weight": ones(320, 0),
            f"{part}.lora_down.weight": ones(0, 768),
        },
        "dora_scale": {f"{part}.dora_scale": ones(7, 1)},
        "alpha of two values": {f"{part}.alpha": ones(2)},
        "larger weight": {f"{part}.reshape_weight": torch.tensor([640, 768])},
        "oft_blocks": {f"{part}.oft_blocks": ones(7, 5, 5)},
        "boft without alpha": {f"{QUERY}.oft_blocks": torch.zeros(2, 40, 8, 8)},
        "glora": {f"{part}.{n}.weight": ones(5, 5) for n in ("a1", "a2", "b1", "b2")},
        "set_weight": {f"{part}.set_weight": ones(1)},
        "half of a pair": {f"{QUERY}.lora_up.weight": ones(320, 4)},
    }[name]


SPOILT = (
    *("hada of one axis", "scalar lora_up", "diff_b of another shape", "diff_b of no layer"),
    *("two ranks", "no rank", "dora_scale", "alpha of two values", "larger weight", "oft_blocks"),
    *("boft without alpha", "glora", "set_weight", "half of a pair"),
)


@pytest.fixture(scope="module")
def plain(engine: Engine, checkpoint: Path) -> Picture:
    """Without any LoRA."""
    return engine.generate(replace(QUICK, steps=1), checkpoint).images[0]


@pytest.mark.parametrize("name", SPOILT)
def test_a_part_that_can_not_be_applied_costs_itself_and_is_disclosed(
    engine: Engine, checkpoint: Path, lora: Lora, tmp_path: Path, plain: Picture, name: str
):
    state = load_file(lora.path)
    part = next(key for key in state if "_unet_" in key).partition(".")[0]
    path = tmp_path / "spoilt.safetensors"
    save_file(state | spoilt(name, part), path)
    job = replace(QUICK, steps=1, loras=(Lora("Spoilt", path),))
    made = engine.generate(job, checkpoint)
    (note,) = made.notes
    assert (note.ref or "").endswith("1 can't be applied")
    assert difference(made.images[0], plain) > 0


@pytest.mark.parametrize(
    "values", [torch.full((320, 2), 1e30), torch.ones(320, 2) * 1j, torch.full((320, 2), torch.inf)]
)
def test_values_that_no_lora_has_are_disclosed(
    loaded: Whole, lora: Lora, tmp_path: Path, values: Tensor
):
    state = load_file(lora.path)
    name = next(key for key in state if key.endswith("lora_up.weight"))
    path = tmp_path / "wild.safetensors"
    save_file(state | {name: values}, path)
    failed = GenMetadata(MetadataType.LORA, MetadataValue.PARSE_FAILED, "Misfit")
    assert notes(path, loaded) == (failed,)


def test_names_without_an_end_take_no_time(loaded: Whole):
    from hordelib.comfyui.nodes.loras import fit_to_model

    with bounded(seconds=1):
        assert fit_to_model({"." * 300_000: ONE}, loaded.model, loaded.clip).parts == 0


# Shapes that fit together, for a weight of 8 x 12, 8 x 8, or 8 x 4 x 3 x 3.
SHAPES: dict[str, list[tuple[int, ...]]] = {
    "lora_up.weight": [(8, 4), (8, 4, 1, 1)],
    "lora_down.weight": [(4, 12), (4, 8), (4, 4, 3, 3), (4, 36), (4, 4)],
    "lora_mid.weight": [(4, 4, 3, 3), (4, 4, 1, 1)],
    "hada_w1_a": [(8, 4), (4, 8)],
    "hada_w1_b": [(4, 12), (4, 8), (4, 36), (4, 4)],
    "hada_w2_a": [(8, 4), (4, 8)],
    "hada_w2_b": [(4, 12), (4, 8), (4, 36), (4, 4)],
    "hada_t1": [(4, 4, 3, 3)],
    "hada_t2": [(4, 4, 3, 3), (4, 4, 1, 1)],
    "lokr_w1": [(2, 2), (4, 4), (2, 3)],
    "lokr_w2": [(4, 6), (2, 2), (4, 2, 3, 3), (4, 4)],
    "lokr_w1_a": [(2, 2), (4, 2)],
    "lokr_w1_b": [(2, 2), (2, 3)],
    "lokr_w2_a": [(4, 2), (2, 4)],
    "lokr_w2_b": [(2, 6), (2, 4)],
    "lokr_t2": [(2, 2, 3, 3)],
    "a1.weight": [(12, 4), (4, 12), (8, 4), (4, 4)],
    "a2.weight": [(4, 12), (12, 4), (4, 8), (4, 4)],
    "b1.weight": [(8, 4), (4, 12)],
    "b2.weight": [(4, 12), (8, 4), (4, 36)],
    "oft_blocks": [(2, 4, 4), (1, 8, 8), (2, 2, 4, 4), (1, 4, 2, 2)],
    "rescale": [(8, 1), (8, 1, 1, 1)],
    "diff": [(8, 12), (8, 8), (8, 4, 3, 3)],
    "set_weight": [(8, 12), (8, 8), (8, 4, 3, 3)],
    "w_norm": [(8, 12), (8, 8)],
    "alpha": [()],
    "dora_scale": [(8, 1), (1, 12), (8, 1, 1, 1), (1, 4, 1, 1), (8,)],
}
ADAPTERS = (
    ("lora_up.weight", "lora_down.weight"),
    ("lora_up.weight", "lora_down.weight", "lora_mid.weight"),
    ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"),
    ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2"),
    ("lokr_w1", "lokr_w2"),
    ("lokr_w1", "lokr_w2_a", "lokr_w2_b"),
    ("lokr_w1", "lokr_w2_a", "lokr_w2_b", "lokr_t2"),
    ("lokr_w1_a", "lokr_w1_b", "lokr_w2_a", "lokr_w2_b", "lokr_t2"),
    ("a1.weight", "a2.weight", "b1.weight", "b2.weight"),
    ("oft_blocks",),
    ("oft_blocks", "rescale"),
    ("diff",),
    ("set_weight",),
    ("w_norm",),
)
SIDES = st.lists(st.sampled_from([0, 1, 2, 3, 4, 7, 8, 12]), max_size=5).map(tuple)


@st.composite
def adapters(draw: st.DrawFn) -> StateDict:
    """The tensors of one part, most of which belong together."""
    names = [
        *draw(st.sampled_from(ADAPTERS)),
        *draw(st.sets(st.sampled_from(["alpha", "dora_scale"]))),
    ]
    missing = draw(st.sampled_from([*names, *[""] * 20]))
    shapes = {
        name: draw(SIDES if draw(st.integers(0, 9)) == 9 else st.sampled_from(SHAPES[name]))
        for name in names
        if name != missing
    }
    return {
        f"part.{name}": torch.linspace(0.1, 1, prod(s)).reshape(s) for name, s in shapes.items()
    }


@pytest.mark.usefixtures("engine")
@settings(derandomize=True, max_examples=150, deadline=None)
@given(st.sampled_from([(8, 12), (8, 8), (8, 4, 3, 3)]), adapters())
def test_each_patch_that_is_taken_changes_the_weight_in_comfyui(
    shape: tuple[int, ...], state: StateDict
):
    """Its own adapters are the judges: none raises, or complains, or gives another shape."""
    from hordelib.comfyui.nodes.patch_shapes import fits, with_whole_core

    comfy_lora: Any = importlib.import_module("comfy.lora")
    try:
        found: dict[str, Any] = comfy_lora.load_lora(state, {"part": "a.weight"}, log_missing=False)
    except (KeyError, RuntimeError):
        return
    for patch in found.values():
        if fits(patch, shape):
            weight, whole = torch.ones(shape), with_whole_core(patch)
            made: Tensor = comfy_lora.calculate_weight([(0.5, whole, 1.0, None, None)], weight, "")
            assert (made.shape, weight._version > 0) == (shape, True)


@pytest.fixture
def patched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the weights that ComfyUI has put patches into."""
    comfy_lora: Any = importlib.import_module("comfy.lora")

    names: list[str] = []
    calculate = comfy_lora.calculate_weight

    def counted(patches: Any, weight: Tensor, key: str, *args: Any, **options: Any) -> Tensor:
        names.append(key)
        return calculate(patches, weight, key, *args, **options)

    monkeypatch.setattr(comfy_lora, "calculate_weight", counted)
    return names


def test_weights_are_not_patched_again_with_a_lora_that_they_have(
    engine: Engine, checkpoint: Path, models: Path, lora: Lora, patched: list[str]
):
    """Nor when the job needs other files beside it, which has ComfyUI's executor start anew."""
    source = SourceImage.of_pil(draw(PLAIN, 64))
    control = Control(type=ControlType.canny, image=source, model=ensure_control_net(models))
    with_lora = replace(QUICK, loras=(lora,))
    engine.generate(QUICK, checkpoint)
    first = engine.generate(with_lora, checkpoint).images
    assert patched
    patched.clear()
    engine.generate(replace(with_lora, control=control), checkpoint)
    again = engine.generate(with_lora, checkpoint).images
    assert patched == []
    assert difference(first[0], again[0]) == 0
    engine.generate(replace(QUICK, loras=(replace(lora, model=0.5),)), checkpoint)
    assert patched


def test_the_demo_models_lora_is_the_same_each_time_it_is_made(
    checkpoint: Path, lora: Lora, tmp_path: Path
):
    from hordelib.demo_model.adapters import write_lora

    write_lora(checkpoint, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == lora.path.read_bytes()


# ---- numbers, cores and families -------------------------------------------------------------


@pytest.mark.parametrize("alpha", [1e5, 1e10, float("nan")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_lokr_of_whole_matrices_may_have_any_alpha(
    loaded: Whole, tmp_path: Path, dtype: torch.dtype, alpha: float
):
    tensors = {"lokr_w1": torch.ones(8, 8), "lokr_w2": torch.ones(40, 96)}
    state = {f"{PART}.{name}": value for name, value in tensors.items()}
    state[f"{PART}.alpha"] = torch.tensor(alpha)
    path = tmp_path / "full.safetensors"
    save_file({name: value.to(dtype) for name, value in state.items()}, path)
    assert notes(path, loaded) == ()


def test_a_lokr_with_a_core_changes_a_weight_as_its_factors_say(loaded: Whole):
    from hordelib.comfyui.nodes.loras import fit_to_model

    comfy_lora: Any = importlib.import_module("comfy.lora")
    left, core = torch.rand(2, 4), torch.rand(2, 3, 3, 3)
    rows, columns = torch.rand(2, 160), torch.rand(3, 80)
    tensors = {"lokr_w1": left, "lokr_t2": core, "lokr_w2_a": rows, "lokr_w2_b": columns}
    part = "lora_unet_input_blocks_1_0_in_layers_2"  # a convolution, 320 x 320 x 3 x 3
    state = {f"{part}.{name}": tensor for name, tensor in tensors.items()}
    fit = fit_to_model(state | {f"{part}.alpha": torch.tensor(1.5)}, loaded.model, loaded.clip)
    ((name, patch),) = fit.patches.items()
    made = comfy_lora.calculate_weight(
        [(1.0, patch, 1.0, None, None)], torch.zeros(320, 320, 3, 3), name
    )
    right = torch.einsum("ijkl,jr,ip->prkl", core, columns, rows)
    blocks = torch.einsum("ab,prkl->apbrkl", left, right).reshape(320, 320, 3, 3)
    assert torch.allclose(made, blocks * (1.5 / 3), rtol=1e-4)


@pytest.mark.usefixtures("engine")
def test_each_name_that_diffusers_gives_a_weight_of_flux_has_a_place():
    from hordelib.comfyui.nodes.loras import _fits

    utils: Any = importlib.import_module("comfy.utils")
    comfy_lora: Any = importlib.import_module("comfy.lora")
    sizes = {"depth": 1, "depth_single_blocks": 1, "hidden_size": 8}
    places: dict[str, Any] = utils.flux_to_diffusers(sizes)
    assert "norm_out.linear.weight" in places
    for place in places.values():
        name, part = (place, None) if isinstance(place, str) else place[:2]
        function = place[2] if len(place) == 3 and not isinstance(place, str) else None
        weight = torch.zeros(56, 8) if name.endswith(".weight") else torch.zeros(56)
        change = torch.ones(part[2], *weight.shape[1:]) if part else torch.ones_like(weight)
        patch = ("diff", (change,))
        assert _fits(place, patch, {name: weight.shape})
        comfy_lora.calculate_weight([(1.0, patch, 1.0, part, function)], weight, name)
        assert weight.sum() == change.sum()


@pytest.mark.parametrize("of", ["SD1", "SD2", "SDXL"])
@pytest.mark.parametrize("on", ["SD1", "SD2", "SDXL"])
def test_a_lora_of_the_unet_alone_is_applied_to_its_own_family_only(
    networks: dict[str, Any], loaded: Whole, of: str, on: str
):
    from hordelib.comfyui.nodes.loras import fit_to_model

    state: StateDict = {}
    for name, weight in networks[of].state_dict().items():
        if "transformer_blocks" in name and weight.ndim == 2:
            part = "lora_unet_" + name.removeprefix("diffusion_model.")[: -len(".weight")]
            part = part.replace(".", "_")
            state[f"{part}.lora_up.weight"] = torch.empty(len(weight), 1, device="meta")
            state[f"{part}.lora_down.weight"] = torch.empty(1, weight.shape[1], device="meta")
    model: Any = SimpleNamespace(model=networks[on])
    assert fit_to_model(state, model, loaded.clip).is_usable is (of == on)


@pytest.fixture(scope="module")
def networks(engine: Engine) -> dict[str, Any]:
    """The UNets of three families in full size, on the meta device, without memory."""
    engine.start()
    base: Any = importlib.import_module("comfy.model_base")
    families: Any = importlib.import_module("comfy.supported_models")
    common: dict[str, Any] = {
        "image_size": 32,
        "in_channels": 4,
        "out_channels": 4,
        "model_channels": 320,
        "use_spatial_transformer": True,
        "legacy": False,
        "dtype": torch.float16,
        "num_heads": -1,
        "num_head_channels": 64,
    }
    four: dict[str, Any] = {
        "num_res_blocks": [2, 2, 2, 2],
        "channel_mult": [1, 2, 4, 4],
        "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
        "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
        "transformer_depth_middle": 1,
    }
    three: dict[str, Any] = {
        "num_res_blocks": [2, 2, 2],
        "channel_mult": [1, 2, 4],
        "transformer_depth": [0, 0, 2, 2, 10, 10],
        "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
        "transformer_depth_middle": 10,
        "adm_in_channels": 2816,
        "num_classes": "sequential",
    }
    linear = {"use_linear_in_transformer": True}
    return {
        name: base.BaseModel(family(common | settings), device="meta")
        for name, family, settings in (
            ("SD1", families.SD15, four | {"context_dim": 768}),
            ("SD2", families.SD20, four | linear | {"context_dim": 1024}),
            ("SDXL", families.SDXL, three | linear | {"context_dim": 2048}),
        )
    }
