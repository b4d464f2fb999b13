"""Captions, interrogations and scores by the engine, with tiny networks of the real layouts."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from torch.nn.functional import normalize

from hordelib import Engine
from hordelib.alchemy.device_forms import NO_MODEL, device_params
from hordelib.alchemy.interrogation import FOLDER as LISTS
from hordelib.alchemy.interrogation import word_lists
from hordelib.comfyui.loaders.picture_readers import WORDS
from hordelib.demo_model import ensure_checkpoint
from hordelib.errors import AuxiliaryBroken, ModelBroken, ModelMissing
from hordelib.files.model import Model
from hordelib.job.batching import Member
from hordelib.job.images import SourceImage
from hordelib.job.params import GenerationParams
from hordelib.job.questions import BLIP, CLIP, CLIP_FOLDER, FOLDER, HEAD, VOCABULARY, Topic, ask
from hordelib.pictures.captions import BEAMS, MOST_TOKENS
from hordelib.pictures.clip import encode_texts, read_picture_clip
from hordelib.pictures.torchscript import read_torchscript
from tests.support.tiny_readers import SIDE, put_blip, put_clip, put_head, save_scripted

COLOURS = ("red", "green", "blue", "yellow", "black", "white")


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine(device="cpu") as engine:
        yield engine


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With all three networks, and what CLIP would make of the words put together by hand."""
    models = tmp_path_factory.mktemp("models")
    put_clip(models)
    put_head(models)
    return models


def noise(seed: int, size: tuple[int, int] = (70, 50)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def source(image: Image.Image) -> SourceImage:
    return SourceImage.of_pil(image)


def test_a_caption_is_that_of_transformers_own_blip(engine: Engine, tmp_path: Path) -> None:
    import transformers

    network = put_blip(tmp_path)
    pictures = [noise(1), noise(2, (33, 90)), Image.new("RGB", (64, 64), "red")]
    tokenizer: Any = transformers.BertTokenizer(str(tmp_path / FOLDER / VOCABULARY.file))
    processor: Any = transformers.BlipImageProcessor(size={"height": SIDE, "width": SIDE})
    pixels = processor(pictures, return_tensors="pt").pixel_values
    tokens = network.generate(pixels, num_beams=BEAMS, max_length=MOST_TOKENS)
    expected = tokenizer.batch_decode(tokens, skip_special_tokens=True)
    assert len(set(expected)) > 1, "these weights tell pictures apart"
    alone = [engine.alchemy("caption", source(each), tmp_path) for each in pictures]
    assert alone == expected

    members = [
        Member(f"form {i}", device_params("caption", source(each), tmp_path))
        for i, each in enumerate(pictures)
    ]
    together = engine.generate_together(members, NO_MODEL)
    assert [done.answers for done in together] == [(text,) for text in expected]
    assert all(done.images == () for done in together)


def test_clip_sees_and_reads_as_that_of_transformers(engine: Engine, tmp_path: Path) -> None:
    engine.start()  # which makes ComfyUI, and with it CLIP's tokenizer, to be had
    import comfy.sd1_clip
    import transformers

    network = put_clip(tmp_path)
    file = tmp_path / CLIP_FOLDER / CLIP.file
    pictures = [noise(3), noise(4, (40, 90))]
    clip = read_picture_clip(file)
    clip.network.float()
    processor: Any = transformers.CLIPImageProcessor(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}
    )
    with torch.inference_mode():
        pixels = processor(pictures, return_tensors="pt").pixel_values
        expected = normalize(network.get_image_features(pixels), dim=-1)
    assert torch.allclose(clip.features(pictures), expected, atol=1e-4)

    folder = Path(comfy.sd1_clip.__file__).with_name("sd1_tokenizer")
    texts = ["red", "a picture of a castle by the sea", "cross-hatching"]
    kind: Any = transformers.CLIPTokenizer
    tokenizer = kind.from_pretrained(str(folder))
    with torch.inference_mode():
        one_by_one = [
            network.get_text_features(**tokenizer([text], return_tensors="pt")) for text in texts
        ]
    expected = normalize(torch.cat(one_by_one), dim=-1)
    assert torch.allclose(encode_texts(file, texts, folder), expected, atol=1e-4)


def test_an_interrogation_ranks_the_pictures_colour_first(engine: Engine, models: Path) -> None:
    """The words' embeddings are put together by hand: a colour's is what a plane of it looks like.

    They lie where the engine keeps what it has computed, so that this is read, too.
    """
    first = answered(engine, models)
    assert {name: len(best) for name, best in first.items()} == dict.fromkeys(word_lists(), 5)
    kept = models / FOLDER / WORDS
    with safetensors.safe_open(kept, "pt") as file:
        told: dict[str, str] = dict(cast(Any, file).metadata())
        features = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    clip = read_picture_clip(models / CLIP_FOLDER / CLIP.file)
    clip.network.float()
    seen = clip.features([Image.new("RGB", (64, 64), colour) for colour in COLOURS])
    for colour, feature in zip(COLOURS, seen, strict=True):
        features["tags"][word_lists()["tags"].index(colour)] = feature.half()
    os.utime(models / CLIP_FOLDER / CLIP.file, ns=changed(models))  # only so that it is read again
    safetensors.torch.save_file(features, kept, {**told, "weights": weights_of(models)})

    for colour in COLOURS:
        plane = Image.new("RGB", (200, 120), colour)
        plane.putpixel((5, 5), (120, 120, 120))
        best = answered(engine, models, plane)["tags"]
        assert best[0]["text"] == colour
        assert [each["confidence"] for each in best] == sorted(
            (each["confidence"] for each in best), reverse=True
        )
        assert 0 < sum(each["confidence"] for each in best) <= 100.1


def changed(models: Path) -> tuple[int, int]:
    stat = (models / CLIP_FOLDER / CLIP.file).stat()
    return stat.st_atime_ns, stat.st_mtime_ns + 10**9


def weights_of(models: Path) -> str:
    stat = (models / CLIP_FOLDER / CLIP.file).stat()
    return f"{CLIP.file} {stat.st_size} {stat.st_mtime_ns}"


def answered(
    engine: Engine, models: Path, image: Image.Image | None = None
) -> dict[str, list[dict[str, Any]]]:
    found = engine.alchemy("interrogation", source(image or noise(5)), models)
    return cast("dict[str, list[dict[str, Any]]]", found)


def test_a_score_is_the_product_of_the_heads_layers(engine: Engine, models: Path) -> None:
    layers = put_head(models)
    clip = read_picture_clip(models / CLIP_FOLDER / CLIP.file)
    clip.network.float()
    values = clip.features([noise(6)])[0].double()
    for number in (0, 2, 4, 6, 7):
        values = layers[f"layers.{number}.weight"].double() @ values
        values = values + layers[f"layers.{number}.bias"].double()
    score = engine.alchemy("aesthetic", source(noise(6)), models)
    assert score == pytest.approx(float(values[0]), abs=1e-3)

    opaque = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    seen = engine.alchemy("aesthetic", SourceImage.of_pil(opaque, "RGBA"), models)
    white = engine.alchemy("aesthetic", source(Image.new("RGB", (40, 40), "white")), models)
    assert seen == pytest.approx(white), "what is transparent counts as white"


def test_finished_pictures_are_scored_where_that_is_asked_for(
    engine: Engine, models: Path, tmp_path: Path
) -> None:
    model = Model.of_checkpoint(ensure_checkpoint(tmp_path))
    plain = GenerationParams(prompt="red circle", width=64, height=64, seed=1, images=2, steps=2)
    scored = GenerationParams(
        prompt="red circle",
        width=64,
        height=64,
        seed=1,
        images=2,
        steps=2,
        scoring=ask(models, Topic.aesthetic),
    )
    without, done = engine.generate(plain, model), engine.generate(scored, model)
    assert without.answers == ()
    assert [each.pixels for each in done.images] == [each.pixels for each in without.images]
    again = [engine.alchemy("aesthetic", source(each.to_pil()), models) for each in done.images]
    assert list(done.answers) == pytest.approx(again, abs=1e-3)
    assert engine.generate(scored, model).answers == done.answers, "also of what ComfyUI has kept"


def test_the_lists_are_whole_and_say_where_they_are_from() -> None:
    lists = word_lists()
    wanted = {"tags", "sites", "artists", "flavors", "mediums", "movements", "techniques"}
    assert set(lists) == wanted
    for name, words in lists.items():
        assert (LISTS / f"{name}.txt").read_text("utf-8").startswith("# ")
        assert len(set(map(str.lower, words))) == len(words) > 20, name
        assert all(0 < len(word) <= 60 and word == word.strip() for word in words)


class _Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.remove, ("what is dear",)


def write_archive(path: Path, attributes: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", attributes)
        archive.writestr("archive/constants.pkl", pickle.dumps(()))


def test_a_broken_archive_is_one_line_with_its_name(tmp_path: Path) -> None:
    file = tmp_path / CLIP.file
    save_scripted({"visual.proj": torch.ones(4, 4)}, file)
    assert torch.equal(read_torchscript(file)["visual.proj"], torch.ones(4, 4).half())
    whole = file.read_bytes()
    hostile = {
        "cut off": whole[: len(whole) // 2],
        "empty": b"",
        "text": b"<html>not found</html>" * 100,
        "other bytes": whole.replace(b"HalfStorage", b"LongStorage"),
    }
    for content in hostile.values():
        file.write_bytes(content)
        with pytest.raises(ModelBroken, match=r"ViT-L-14\.pt.*fetch it again"):
            read_torchscript(file)
    for attributes in (pickle.dumps(_Hostile()), b"garbage", b""):
        write_archive(file, attributes)
        with pytest.raises(ModelBroken, match=r"damaged archive"):
            read_torchscript(file)


def test_files_that_are_missing_or_others_fail_the_form_alone(
    engine: Engine, models: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelMissing, match=r"blip-image-captioning-base\.bin"):
        engine.alchemy("caption", source(noise(7)), tmp_path)
    put_blip(tmp_path)
    (tmp_path / FOLDER / VOCABULARY.file).write_text("not a vocabulary", "utf-8")
    with pytest.raises(AuxiliaryBroken, match=VOCABULARY.file):
        engine.alchemy("caption", source(noise(7)), tmp_path)
    put_blip(tmp_path)
    weights = tmp_path / FOLDER / BLIP.file
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(AuxiliaryBroken, match=BLIP.file):
        engine.alchemy("caption", source(noise(7)), tmp_path)
    torch.save({"vision_model.proj": _Hostile()}, weights)
    with pytest.raises(AuxiliaryBroken, match="could run code"):
        engine.alchemy("caption", source(noise(7)), tmp_path)
    put_clip(tmp_path)
    put_head(tmp_path, width=7)
    with pytest.raises(Exception, match="7 wide"):
        engine.alchemy("aesthetic", source(noise(7)), tmp_path)
    torch.save({"layers.0.weight": torch.ones(2, 2)}, tmp_path / FOLDER / HEAD.file)
    with pytest.raises(AuxiliaryBroken, match="linearMSE"):
        engine.alchemy("aesthetic", source(noise(7)), tmp_path)


@pytest.mark.parametrize("size", [(1, 1), (9000, 1), (3, 4000)])
def test_pictures_of_odd_shapes_are_answered_too(
    engine: Engine, models: Path, size: tuple[int, int]
) -> None:
    assert isinstance(engine.alchemy("aesthetic", source(Image.new("RGB", size)), models), float)
