"""What the text encoder gets: textual inversions, long prompts, and one length for both prompts."""

from __future__ import annotations

import copy
import importlib
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from hordelib import Engine, GenerationParams
from hordelib.demo_model import EMBEDDING_FILE_NAME, ensure_embedding
from hordelib.demo_model.shapes import Scene
from hordelib.engine import Generation
from hordelib.files.embeddings import MOST_VECTORS, Looked, find
from hordelib.files.model import Model
from hordelib.graphs.build import build_graph
from hordelib.job.notes import GenMetadata, MetadataType, MetadataValue
from hordelib.job.payload import read_payload
from hordelib.job.prompts import bound
from hordelib.job.samplers import SAMPLERS
from tests.support.looks import difference, look
from tests.support.whole_checkpoint import load_whole

TI = EMBEDDING_FILE_NAME.removesuffix(".safetensors")
RED = Scene("circle", "red", "green")
SMALL = GenerationParams(
    prompt=RED.caption,
    width=64,
    height=64,
    seed=3,
    steps=10,
    cfg=4.0,
    sampler=SAMPLERS["k_euler"],
)
QUICK = replace(SMALL, steps=2)
ONCE = replace(SMALL, steps=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Path:
    """The demo model's textual inversion, and one for Stable Diffusion 2."""
    folder = tmp_path_factory.mktemp("ti")
    shutil.copy(ensure_embedding(models), folder)
    save_file({"emb_params": torch.ones(2, 1024)}, folder / "wide.safetensors")
    return folder


def picture(engine: Engine, checkpoint: Path, params: GenerationParams):
    return engine.generate(params, checkpoint).images[0]


# ---- textual inversions ----------------------------------------------------------------------


def test_a_textual_inversion_says_what_it_was_made_for(
    engine: Engine, checkpoint: Path, folder: Path
):
    params = replace(
        SMALL, prompt=f"a embedding:{TI} circle on a green background", embeddings_folder=folder
    )
    made = engine.generate(params, checkpoint)
    seen = look(made.images[0], RED)
    assert (seen.colour, seen.background, made.notes) == ("red", "green", ())
    assert difference(made.images[0], picture(engine, checkpoint, SMALL)) <= 2


def test_the_strength_of_a_textual_inversion_is_honoured(
    engine: Engine, checkpoint: Path, folder: Path
):
    weak, weaker = (
        replace(QUICK, prompt=f"a (embedding:{TI}:{weight}) circle", embeddings_folder=folder)
        for weight in (0.5, -0.5)
    )
    assert difference(*(picture(engine, checkpoint, params) for params in (weak, weaker))) > 5


def test_a_textual_inversion_works_in_the_negative_prompt(
    engine: Engine, checkpoint: Path, folder: Path
):
    params = replace(QUICK, negative_prompt=f"plain,(embedding:{TI}:1)", embeddings_folder=folder)
    spelt_out = replace(QUICK, negative_prompt="plain, red")
    pictures = [picture(engine, checkpoint, job) for job in (params, spelt_out, QUICK)]
    assert difference(pictures[0], pictures[2]) > difference(pictures[0], pictures[1])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("wide", MetadataValue.BASELINE_MISMATCH),
        ("absent", MetadataValue.DOWNLOAD_FAILED),
        (f"../ti/{TI}", MetadataValue.DOWNLOAD_FAILED),
    ],
)
def test_a_textual_inversion_that_cannot_be_used_is_left_out_and_disclosed(
    engine: Engine, checkpoint: Path, folder: Path, name: str, value: MetadataValue
):
    params = replace(QUICK, prompt=f"(embedding:{name}:1) {QUICK.prompt}", embeddings_folder=folder)
    made = engine.generate(params, checkpoint)
    assert made.notes == (GenMetadata(MetadataType.TI, value, name),)
    assert made.images == engine.generate(QUICK, checkpoint).images


def test_a_textual_inversion_that_arrives_later_is_used(
    engine: Engine, checkpoint: Path, folder: Path, tmp_path: Path
):
    params = replace(QUICK, prompt=f"a embedding:{TI} circle", embeddings_folder=tmp_path)
    before = engine.generate(params, checkpoint)
    shutil.copy(folder / EMBEDDING_FILE_NAME, tmp_path)
    after = engine.generate(params, checkpoint)
    assert [len(made.notes) for made in (before, after)] == [1, 0]
    assert before.images != after.images


def test_the_models_own_text_encoder_knows_no_folder_afterwards(
    engine: Engine, checkpoint: Path, folder: Path
):
    params = replace(QUICK, prompt=f"a embedding:{TI} circle")
    engine.generate(replace(params, embeddings_folder=folder), checkpoint)
    assert [note.ref for note in engine.generate(params, checkpoint).notes] == [TI]


def test_the_widths_are_those_of_each_familys_text_encoders(engine: Engine):
    from comfy.sd1_clip import SD1Tokenizer
    from comfy.sdxl_clip import SDXLTokenizer
    from comfy.text_encoders.sd2_clip import SD2Tokenizer

    from hordelib.comfyui.nodes.text import encoder_widths

    widths = [encoder_widths(kind()) for kind in (SD1Tokenizer, SD2Tokenizer, SDXLTokenizer)]
    assert widths == [{"clip_l": 768}, {"clip_h": 1024}, {"clip_l": 768, "clip_g": 1280}]


def test_no_path_part_of_a_name_reaches_another_file(folder: Path):
    (folder.parent / "outside.safetensors").write_bytes(b"")
    assert find("../outside", folder) is None


@pytest.mark.parametrize(
    "values",
    [
        torch.full((2, 768), torch.nan),
        torch.full((2, 768), 1e30),
        torch.ones(2, 768, dtype=torch.int32),
        torch.ones(2, 768, dtype=torch.complex64),
    ],
    ids=["nan", "huge", "whole", "complex"],
)
def test_a_textual_inversion_of_no_use_costs_only_itself(
    engine: Engine, checkpoint: Path, tmp_path: Path, values: torch.Tensor
):
    save_file({"emb_params": values}, tmp_path / "bad.safetensors")
    params = replace(ONCE, prompt=f"embedding:bad {ONCE.prompt}", embeddings_folder=tmp_path)
    made = engine.generate(params, checkpoint)
    assert made.notes == (GenMetadata(MetadataType.TI, MetadataValue.PARSE_FAILED, "bad"),)
    assert made.images == engine.generate(ONCE, checkpoint).images


@pytest.mark.usefixtures("engine")
def test_a_textual_inversion_of_many_vectors_mentioned_again_and_again_is_bounded(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Twenty megabytes of it; each file is opened once for all mentions in both prompts."""
    inversions, text = (
        importlib.import_module(f"hordelib.comfyui.nodes.{name}") for name in ("inversions", "text")
    )
    opened: list[Path] = []
    safe_open = inversions.safe_open

    def counted(path: Path, framework: str) -> Any:
        opened.append(path)
        return safe_open(path, framework)

    monkeypatch.setattr(inversions, "safe_open", counted)
    save_file(
        {"emb_params": torch.zeros(13_643, 768, dtype=torch.half)}, tmp_path / "big.safetensors"
    )
    (pointed,) = text.DreamerEmbeddings().point(load_whole(checkpoint).clip, str(tmp_path))
    for prompt in ("a embedding:big " * 700, "embedding:big, b " * 700):
        tokens, notes = text._tokens(prompt, pointed)
        assert len(tokens["l"]) == text.MOST_CHUNKS
        assert [note.ref for note in notes][:3] == [
            f"textual inversion big has 13643 vectors: {MOST_VECTORS} were used",
            "textual inversions beyond 2400 vectors in a prompt left out",
            "textual inversions after the first 50 in a prompt left out",
        ]
    assert opened == [tmp_path / "big.safetensors"]


@pytest.mark.parametrize(
    "text", [f"a (embedding:{TI}:0.5) b", f"embedding:{TI}", f"x\nembedding:{TI}"]
)
def test_a_textual_inversion_is_the_same_to_the_tokenizer_as_by_comfyuis_own_reader(
    engine: Engine, checkpoint: Path, folder: Path, text: str
):
    from hordelib.comfyui.nodes.text import DreamerEmbeddings

    clip = load_whole(checkpoint).clip
    own = copy.copy(clip.tokenizer.clip_l)
    own.embedding_directory = str(folder)
    (pointed,) = DreamerEmbeddings().point(clip, str(folder))
    expected: list[list[Any]] = own.tokenize_with_weights(text)
    pointed.tokenizer.inversions.count(TI)
    tokens: list[list[Any]] = pointed.tokenizer.clip_l.tokenize_with_weights(text)
    for ours, theirs in zip(chain(*tokens), chain(*expected), strict=True):
        assert ours[1] == theirs[1]
        assert torch.equal(torch.as_tensor(ours[0]).float(), torch.as_tensor(theirs[0]).float())


# ---- what a client wrote is what is encoded --------------------------------------------------

LIST = "1. a red cat\n2. a blue dog\n3. a fox"
FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
PERSIAN = "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"  # a non-joiner between its parts


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("text", [LIST, FAMILY, PERSIAN], ids=["list", "family", "Persian"])
@pytest.mark.parametrize(
    "kind",
    [
        "sd1_clip.SD1Tokenizer",
        "sdxl_clip.SDXLTokenizer",
        "text_encoders.qwen_image.QwenImageTokenizer",
        "text_encoders.z_image.ZImageTokenizer",
    ],
)
def test_line_breaks_and_joiners_reach_the_text_encoder_as_they_were_written(kind: str, text: str):
    module, _, name = kind.rpartition(".")
    tokenizer = getattr(importlib.import_module(f"comfy.{module}"), name)()
    read, _ = bound(read_payload({"prompt": text}).params.prompt)
    assert tokenizer.tokenize_with_weights(read) == tokenizer.tokenize_with_weights(text)
    spaced = text.translate(dict.fromkeys(map(ord, "\n\u200c\u200d"), " "))
    is_told_apart = "clip" not in kind or text == FAMILY
    assert (tokenizer.tokenize_with_weights(spaced) != tokenizer.tokenize_with_weights(text)) or (
        not is_told_apart
    )


# ---- prompts of any length -------------------------------------------------------------------


@contextmanager
def counted_unet_calls() -> Generator[list[int]]:
    """The batch of every call of ComfyUI's UNet."""
    calls: list[int] = []

    def count(module: torch.nn.Module, inputs: tuple[Any, ...]) -> None:
        if type(module).__name__ == "UNetModel":
            calls.append(len(inputs[0]))

    hook = torch.nn.modules.module.register_module_forward_pre_hook(count)
    try:
        yield calls
    finally:
        hook.remove()


def of_chunks(count: int) -> str:
    """A prompt that takes `count` chunks of 75 tokens."""
    return f"{RED.caption} " + "plain " * (75 * (count - 1))


@pytest.mark.parametrize(
    ("positive", "negative"),
    [(1, 1), (2, 1), (3, 1), (5, 1), (8, 1), (3, 2), (2, 5)],
)
def test_a_step_is_one_call_of_the_unet_whatever_the_prompts_lengths(
    engine: Engine, checkpoint: Path, positive: int, negative: int
):
    params = replace(ONCE, prompt=of_chunks(positive), negative_prompt=of_chunks(negative))
    with counted_unet_calls() as calls:
        engine.generate(params, checkpoint)
    assert calls == [2]  # both prompts in one call


def test_repeated_tokens_change_nothing_for_the_unet(engine: Engine, checkpoint: Path):
    from hordelib.comfyui.nodes.text import stretch

    model = load_whole(checkpoint).model.model
    generator = torch.Generator().manual_seed(1)
    latent, text = (torch.randn(*s, generator=generator) for s in ((1, 4, 8, 8), (1, 77, 768)))
    step = torch.tensor([3.0])
    with torch.inference_mode():
        once, thrice = (
            model.apply_model(latent, step, c_crossattn=stretch(text, length, None))
            for length in (77, 231)
        )
    assert (once - thrice).abs().max() < 1e-5 * once.abs().max()


def test_a_short_prompt_beside_a_long_one_still_says_what_it_says(engine: Engine, checkpoint: Path):
    """Three chunks and two: the shorter is padded with an empty chunk."""
    params = replace(SMALL, prompt=of_chunks(2), negative_prompt="plain " * 150)
    seen = look(picture(engine, checkpoint, params), RED)
    assert (seen.colour, seen.background) == ("red", "green")


def told(made: Generation) -> list[str | None]:
    assert {note.type for note in made.notes} <= {MetadataType.INFORMATION}
    return [note.ref for note in made.notes]


def test_a_prompt_of_ten_thousand_words_is_cut_and_disclosed(engine: Engine, checkpoint: Path):
    made = engine.generate(replace(ONCE, prompt="! a " * 5_000), checkpoint)
    assert told(made) == [
        "a prompt of 20000 characters was cut after 12000",
        "a prompt of 80 chunks of 75 tokens was cut after 32",
    ]


@pytest.mark.parametrize("weight", ["nan", "inf", "-1e30", "1e9"])
def test_an_absurd_weight_is_tamed_and_disclosed(engine: Engine, checkpoint: Path, weight: str):
    made = engine.generate(replace(ONCE, prompt=f"a (red:{weight}) circle"), checkpoint)
    assert told(made) == ["weights in a prompt beyond 20 were brought down to it"]


@pytest.mark.parametrize(
    "text", ["embedding:", "embedding: ", "(((", "\\", "", "a" * 3000, "(" * 999 + ")" * 999]
)
def test_odd_prompts_make_a_picture(engine: Engine, checkpoint: Path, text: str):
    assert engine.generate(replace(ONCE, prompt=text), checkpoint).images


def test_only_families_that_read_prompts_by_cross_attention_get_even_ones(checkpoint: Path):
    model = Model.of_checkpoint(checkpoint)
    joint = replace(model, family=replace(model.family, joins_prompts=False))
    assert "even_prompts" in build_graph(SMALL, model).titles
    assert "even_prompts" not in build_graph(SMALL, joint).titles


def test_the_demo_models_textual_inversion_is_the_vector_of_a_word(models: Path):
    (vector,) = load_file(ensure_embedding(models)).values()
    assert vector.shape == (1, 768)


@pytest.mark.usefixtures("engine")
def test_a_textual_inversion_is_looked_at_once_for_all_mentions(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    from hordelib.comfyui.nodes import inversions

    looks: list[str] = []
    look_at = inversions.look_at

    def counted(name: str, *rest: Any) -> Looked:
        looks.append(name)
        return look_at(name, *rest)

    monkeypatch.setattr(inversions, "look_at", counted)
    known = inversions.Inversions(folder, {"clip_l": 768})
    known.count(TI)
    for _ in range(50):
        vectors, words = known.take(f"{TI} circle", "clip_l")
        assert (vectors is not None, words) == (True, "circle")
    assert known.take("other circle", "clip_l") == (None, "circle")
    assert looks == [TI]
