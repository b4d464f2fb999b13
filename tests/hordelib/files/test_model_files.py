"""Model files that are not what they are called, or not whole: served, or named with a remedy."""

from __future__ import annotations

import os
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks.card.layouts import kl_vae
from hordelib import Engine, GenerationParams
from hordelib.comfyui.loaders import load, load_part
from hordelib.comfyui.loaders.tensors import read_tensors
from hordelib.errors import ModelBroken
from hordelib.files.completeness import insist_on_whole
from hordelib.files.headers import detect, read_shapes, verify_checkpoint
from hordelib.files.model import Model
from hordelib.files.model_key import ModelKey
from hordelib.job.families import FAMILIES, SD1, Family
from tests.hordelib.test_engine import SMALL
from tests.support.family_files import HEADERS, UNET, Shapes, completed, write_header
from tests.support.layouts import write_sd2, write_sdxl
from tests.support.linear import MOST_GROWTH, growth
from worker.config.keys import BridgeConfig
from worker.models.opening import find_models

# ---- what a file is ----------------------------------------------------------------------------

OTHERS: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", r"an empty file; fetch it again"),
    "a page": (b"<!DOCTYPE html><html>Log in</html>", r"a web page, .*; fetch it again"),
    "a page after a line": (b"\xef\xbb\xbf\n <HTML>", r"a web page, .*; fetch it again"),
    "an answer": (b'{"error": "unauthorized"}', r"a text, .*; fetch it again"),
    "a pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        r"a pointer of Git LFS.*; run git lfs pull",
    ),
    "a GGUF": (b"GGUF\x03\0\0\0" + bytes(40), r"a GGUF file.*; use a safetensors file"),
    "a zip": (b"PK\x03\x04" + bytes(60), r"a damaged pickle .*; fetch it again"),
    "an archive": (b"7z\xbc\xaf\x27\x1c" + bytes(60), r"an archive \(7z\); unpack it"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(40), r"a picture; fetch the model's own file"),
    "a bare pickle": (b"\x80\x02}q\0.", r"no model file: it begins with b'.*'; fetch it again"),
    "noise": (b"\xff" * 40, r"no model file: it begins with b'\\xff.*; fetch it again"),
}


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt", ".sft"])
@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_model_is_named_with_a_remedy(tmp_path: Path, name: str, suffix: str):
    content, told = OTHERS[name]
    path = tmp_path / f"model{suffix}"
    path.write_bytes(content)
    for read in (verify_checkpoint, detect, read_shapes):
        with pytest.raises(ModelBroken, match=rf"model{suffix}: {told}"):
            read(path)


def test_a_file_that_can_not_be_opened_is_named(tmp_path: Path):
    (tmp_path / "model.safetensors").mkdir()
    with pytest.raises(ModelBroken, match=r"model\.safetensors: can't be read .*; see to"):
        verify_checkpoint(tmp_path / "model.safetensors")


@pytest.fixture(scope="module")
def pickled(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pickled") / "whole.ckpt"
    torch.save({"state_dict": load_file(checkpoint), "loss": np.float32(0.1)}, path)
    return path


@pytest.mark.parametrize("name", ["model.sft", "model.ckpt", "model", "model.bin"])
def test_safetensors_of_any_name_are_served(
    engine: Engine, checkpoint: Path, tmp_path: Path, name: str
):
    os.link(checkpoint, tmp_path / name)
    params = GenerationParams(prompt="a red circle", width=64, height=64, steps=1, seed=3)
    (picture,) = engine.generate(params, tmp_path / name).images
    (usual,) = engine.generate(params, checkpoint).images
    assert picture.pixels == usual.pixels


@pytest.mark.parametrize("name", ["model.safetensors", "model.pt", "model.ckpt"])
def test_pickles_of_any_name_are_served_also_with_numbers_of_numpy(
    engine: Engine, checkpoint: Path, pickled: Path, tmp_path: Path, name: str
):
    os.link(pickled, tmp_path / name)
    params = GenerationParams(prompt="a red circle", width=64, height=64, steps=1, seed=3)
    (picture,) = engine.generate(params, tmp_path / name).images
    (usual,) = engine.generate(params, checkpoint).images
    assert picture.pixels == usual.pixels


@pytest.mark.parametrize("number", [np.float32(1), np.float64(1), np.int64(1), np.bool_(True)])
@pytest.mark.parametrize("core", [b"numpy.core", b"numpy._core"], ids=["numpy 1", "numpy 2"])
def test_numbers_of_numpy_cost_no_pickle_its_place(
    engine: Engine, tmp_path: Path, core: bytes, number: Any
):
    path = tmp_path / "model.ckpt"
    torch.save({"state_dict": {"a": torch.ones(2)}, "loss": number}, path)
    rewrite(path, lambda content: content.replace(b"numpy._core", core))
    verify_checkpoint(path)
    state, _ = read_tensors(path)
    assert torch.equal(state["a"], torch.ones(2))


def rewrite(path: Path, change: Callable[[bytes], bytes]) -> None:
    """The same zip, with another list of tensors."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, change(content) if name.endswith("data.pkl") else content)


# ---- what is missing ---------------------------------------------------------------------------


def header_of(path: Path, into: Path, *without: str) -> Model:
    """The model of a file with the same tensors, as holes, but for those that begin so."""
    shapes = {n: s for n, s in read_shapes(path).items() if not n.startswith(without or "\0")}
    return Model.of_checkpoint(write_header(into, shapes, prefix=""))


MISSING = {
    "the last layer": (
        f"{UNET}out.2.weight",
        r"lacks weights \(model\.diffusion_model\.out\.2\.weight\)",
    ),
    "a weight of the middle": (f"{UNET}middle_block.0.in_layers.2.weight", "middle_block.0"),
    "a block": (f"{UNET}input_blocks.1.", r"\(model\.diffusion_model\.input_blocks\.1\)"),
    "a projection": (f"{UNET}output_blocks.0.1.proj_in.", r"output_blocks\.0\.1\.proj_in\.bias"),
    "a layer of the text encoder": (
        "cond_stage_model.transformer.text_model.encoder.layers.11.",
        r"encoder\.layers\.11\..* and 13 more",
    ),
    "the text encoder": ("cond_stage_model.", "has no text encoder: .*; use a file that has"),
    "the VAE": ("first_stage_model.", "has no VAE: .*; use a file that has"),
}


@pytest.mark.parametrize("name", MISSING)
def test_a_checkpoint_that_lacks_weights_is_refused_before_it_is_offered(
    checkpoint: Path, tmp_path: Path, name: str
):
    start, told = MISSING[name]
    model = header_of(checkpoint, tmp_path / "Some Model.safetensors", start)
    with pytest.raises(ModelBroken, match=rf"Some Model\.safetensors.*({told})"):
        insist_on_whole(model)


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize(
    ("write", "family"), [(write_sd2, "stable diffusion 2"), (write_sdxl, "stable_diffusion_xl")]
)
def test_whole_files_of_comfyuis_layouts_pass_and_each_weight_is_missed(
    tmp_path: Path, write: Callable[[Path], Path], family: str
):
    whole = read_shapes(write(tmp_path / "whole.safetensors"))
    vae = {f"first_stage_model.{name}": shape for name, shape in kl_vae().items()}
    whole = {n: s for n, s in whole.items() if not n.startswith("first_stage_model.")} | vae
    path = tmp_path / "model.safetensors"
    insist_on_whole(Model.of_checkpoint(write_header(path, whole, prefix="")))
    needed = [name for name in sorted(whole) if not any(part in name for part in NOT_NEEDED)]
    for name in random.Random(4).sample(needed, 25):
        rest = {each: shape for each, shape in whole.items() if each != name}
        model = Model(family, FAMILIES[family], {"checkpoint": write_header(path, rest, prefix="")})
        with pytest.raises(ModelBroken, match=r"lacks weights \("):
            insist_on_whole(model)


NOT_NEEDED = ("text_projection", "resblocks.23", "logit_scale")


@pytest.mark.parametrize(
    ("family", "shapes", "told"),
    [
        ("flux_1", HEADERS["flux_1"], "has no VAE"),
        ("flux_1", {**HEADERS["flux_1"], "../vae.a": (1,)}, "has no VAE"),
        ("stable_cascade", HEADERS["stable_cascade"], "has no text encoder"),
    ],
)
def test_parts_of_larger_families_are_looked_for(
    tmp_path: Path, family: str, shapes: Shapes, told: str
):
    path = write_header(tmp_path / "model.safetensors", shapes)
    title = FAMILIES[family].loaders[0].title
    with pytest.raises(ModelBroken, match=told):
        insist_on_whole(Model(family, FAMILIES[family], {title: path}))


def test_what_one_block_of_many_lacks_is_noticed(tmp_path: Path):
    family: Family = FAMILIES["qwen_image"]
    shapes: Shapes = dict(HEADERS["qwen_image"])
    for block in range(4):
        for name in ("attn.to_q.weight", "attn.to_q.bias", "norm.weight"):
            shapes[f"transformer_blocks.{block}.{name}"] = (2,)
    path = tmp_path / "model.safetensors"
    model = Model("m", family, {"diffusion_model": write_header(path, shapes)})
    insist_on_whole(model)
    del shapes["transformer_blocks.2.attn.to_q.bias"]
    write_header(path, shapes)
    with pytest.raises(ModelBroken, match=r"transformer_blocks\.2\.attn\.to_q\.bias"):
        insist_on_whole(model)


def test_names_of_tensors_are_read_in_a_time_that_grows_with_their_length(tmp_path: Path):
    family: Family = FAMILIES["qwen_image"]
    path = tmp_path / "model.safetensors"
    model = Model("m", family, {"diffusion_model": path})

    def read(size: int) -> None:
        write_header(path, {**HEADERS["qwen_image"], "layers.1." * size: (2,)})
        insist_on_whole(model)

    assert growth(read, 2_000) <= MOST_GROWTH


@pytest.mark.parametrize(
    ("variant", "name"),
    [
        ("unet", f"{UNET}out.2.weight"),
        ("text_encoder", "cond_stage_model.transformer.text_model.encoder.layers.11.mlp.fc1.bias"),
        ("vae", "first_stage_model.taesd_decoder.10.conv.0.weight"),
    ],
)
def test_what_comfyui_misses_in_a_file_is_broken_by_name(
    engine: Engine, checkpoint: Path, tmp_path: Path, variant: str, name: str
):
    weights = load_file(checkpoint)
    del weights[name]
    path = tmp_path / "model.safetensors"
    save_file(weights, path)
    end = name.rpartition("model.")[2]
    with pytest.raises(ModelBroken, match=rf"lacks weights \(.*{end[-30:]}\); fetch it again"):
        load_part(ModelKey("checkpoint", path, variant))
    with pytest.raises(ModelBroken, match="lacks weights"):
        engine.generate(SMALL, path)


def test_a_weight_of_another_size_is_told_with_its_name(
    engine: Engine, checkpoint: Path, tmp_path: Path
):
    weights = load_file(checkpoint)
    name = "cond_stage_model.transformer.text_model.encoder.layers.3.mlp.fc1.weight"
    weights[name] = weights[name][:, :-1].contiguous()
    path = tmp_path / "model.safetensors"
    save_file(weights, path)
    with pytest.raises(ModelBroken, match=r"SD1ClipModel: size mismatch for .*layers\.3\.mlp\.fc1"):
        engine.generate(SMALL, path)


# ---- what it predicts --------------------------------------------------------------------------

MARKERS: dict[str, tuple[dict[str, torch.Tensor], dict[str, str], str]] = {
    "none": ({}, {}, "EPS"),
    "a tensor": ({"v_pred": torch.zeros(0)}, {}, "V_PREDICTION"),
    "metadata": ({}, {"modelspec.prediction_type": "v"}, "V_PREDICTION"),
    "other metadata": ({}, {"modelspec.prediction_type": "epsilon"}, "EPS"),
}


@pytest.mark.parametrize("name", MARKERS)
@pytest.mark.usefixtures("engine")
def test_a_marker_of_v_prediction_is_honoured(checkpoint: Path, tmp_path: Path, name: str):
    tensors, metadata, found = MARKERS[name]
    path = tmp_path / "model.safetensors"
    save_file(load_file(checkpoint) | tensors, path, metadata)
    model = load(ModelKey("checkpoint", path, "unet")).model
    assert model.model_type.name == found
    bases = {base.__name__ for base in type(model.model_sampling).__mro__}
    assert ("V_PREDICTION" in bases) is (found == "V_PREDICTION")


# ---- one bad file ------------------------------------------------------------------------------


def test_no_bad_file_costs_another_one_its_place(tmp_path: Path):
    bad: dict[str, Path] = {}
    for name, (content, _) in OTHERS.items():
        bad[name] = tmp_path / f"{name}.safetensors"
        bad[name].write_bytes(content)
    for number, shape in enumerate(("[]", "[[1]]", "[-1]", '"4"', "null", "[1e3]")):
        bad[f"shape {shape}"] = tmp_path / f"shape{number}.safetensors"
        first = f'{{"{UNET}input_blocks.0.0.weight":{{"dtype":"U8","shape":{shape},'
        text = (first + '"data_offsets":[0,1]}}').encode()
        bad[f"shape {shape}"].write_bytes(len(text).to_bytes(8, "little") + text + b"\0")
    bad["a folder"] = tmp_path
    bad["nowhere"] = tmp_path / "nowhere.safetensors"
    good = tmp_path / "good.safetensors"
    write_header(good, completed(SD1, HEADERS["stable diffusion 1"]), prefix="")
    models = find_models(configured(tmp_path, {**bad, "Good": good}), tmp_path)
    assert set(models.served) == {"Good"}
    assert len(models.problems) == len(bad)


def configured(home: Path, models: dict[str, Path]) -> BridgeConfig:
    return BridgeConfig.model_validate(
        {
            "api_key": "a-key",
            "dreamer_name": "tester",
            "cache_home": str(home),
            "models_to_load": list(models),
            "custom_models": [
                {"name": name, "baseline": "stable diffusion 1", "filepath": str(path)}
                for name, path in models.items()
            ],
        }
    )
