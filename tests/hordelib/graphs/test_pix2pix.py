"""Models that see the source: instruct-pix2pix (8 input channels) and inpainting models (9)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hordelib import Engine, GenerationParams
from hordelib.demo_model.shapes import Scene, draw
from hordelib.files.model import INPAINTING, INSTRUCT, Model
from hordelib.job.images import Picture, SourceImage
from hordelib.job.params import FromImage, Inpaint
from hordelib.job.samplers import SAMPLERS
from tests.support.family_files import widen
from tests.support.looks import difference, look, pixels

RED_CIRCLE = Scene("circle", "red", "blue")
YELLOW_SQUARE = Scene("square", "yellow", "black")
JOB = GenerationParams(
    prompt="a red circle on a blue background",
    width=64,
    height=64,
    seed=5,
    steps=8,
    cfg=3.0,
    sampler=SAMPLERS["k_euler"],
)
LEFT = SourceImage.of_pil(
    Image.fromarray(np.repeat([[255] * 32 + [0] * 32], 64, axis=0).astype(np.uint8)), "L"
)


def _source(scene: Scene) -> SourceImage:
    return SourceImage.of_pil(draw(scene, 64))


FROM_SQUARE = replace(JOB, source=FromImage(_source(YELLOW_SQUARE)))
REPAINTED = replace(JOB, source=Inpaint(_source(YELLOW_SQUARE), LEFT))


@pytest.fixture(scope="module")
def ordinary(checkpoint: Path) -> Model:
    return Model.of_checkpoint(checkpoint)


@pytest.fixture(scope="module")
def pix2pix(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("pix2pix")
    return widen(checkpoint, folder / "pix2pix.safetensors", INSTRUCT, 0.3)


@pytest.fixture(scope="module")
def blind_pix2pix(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("blind")
    return widen(checkpoint, folder / "blind.safetensors", INSTRUCT, 0.0)


@pytest.fixture(scope="module")
def inpainting(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("inpainting")
    return widen(checkpoint, folder / "inpainting.safetensors", INPAINTING, 0.3)


def _make(engine: Engine, job: GenerationParams, model: Model) -> Picture:
    return engine.generate(job, model).images[0]


def test_the_models_are_known_by_their_files(pix2pix: Model, inpainting: Model):
    for model in (pix2pix, inpainting):
        found = Model.of_checkpoint(model.files["checkpoint"])
        assert (found.family, found.channels) == (model.family, model.channels)
    assert inpainting.inpaints
    assert not pix2pix.inpaints


def test_pix2pix_draws_what_the_prompt_says(engine: Engine, blind_pix2pix: Model):
    """From noise, as it was trained: denoising strength is 1 unless the job says otherwise."""
    seen = look(_make(engine, FROM_SQUARE, blind_pix2pix), RED_CIRCLE)
    assert (seen.colour, seen.background) == ("red", "blue")


def test_pix2pix_that_does_not_look_is_the_ordinary_model(
    engine: Engine, blind_pix2pix: Model, ordinary: Model
):
    """What the demo model makes of the text: of the source, only what noise leaves of it."""
    blind, text_only = _make(engine, FROM_SQUARE, blind_pix2pix), _make(engine, JOB, ordinary)
    assert np.abs(pixels(blind) - pixels(text_only)).mean() < 2


def test_pix2pix_sees_its_source(engine: Engine, pix2pix: Model):
    other = replace(JOB, source=FromImage(_source(RED_CIRCLE)))
    assert difference(_make(engine, FROM_SQUARE, pix2pix), _make(engine, other, pix2pix)) > 20


def test_pix2pix_keeps_as_much_as_denoising_strength_says(engine: Engine, blind_pix2pix: Model):
    """At a cfg of 1: above, the demo model sees the prompt's colours in the faintest noise."""
    job = replace(FROM_SQUARE, seed=3, cfg=1.0, denoise=0.1)
    kept = look(_make(engine, job, blind_pix2pix), YELLOW_SQUARE)
    assert (kept.colour, kept.background) == ("yellow", "black")
    gone = look(_make(engine, replace(job, denoise=1.0), blind_pix2pix), RED_CIRCLE)
    assert (gone.colour, gone.background) == ("red", "blue")


def test_each_image_of_a_pix2pix_batch_is_the_one_of_its_seed(engine: Engine, pix2pix: Model):
    batch = engine.generate(replace(FROM_SQUARE, images=2), pix2pix).images
    alone = _make(engine, replace(FROM_SQUARE, seed=6), pix2pix)
    assert difference(batch[1], alone) <= 1


def test_pix2pix_without_a_source_makes_a_picture(engine: Engine, pix2pix: Model):
    assert _make(engine, JOB, pix2pix).width == 64


def test_an_inpainting_model_repaints_under_the_mask_alone(engine: Engine, inpainting: Model):
    made = pixels(_make(engine, REPAINTED, inpainting))
    source = pixels(draw(YELLOW_SQUARE, 64))
    assert (made[:, 32:] == source[:, 32:]).all()
    assert np.abs(made[:, :32] - source[:, :32]).mean() > 30


def test_an_inpainting_model_sees_what_is_left_of_the_source(
    engine: Engine, inpainting: Model, ordinary: Model
):
    seen, unseen = (_make(engine, REPAINTED, model) for model in (inpainting, ordinary))
    assert difference(seen, unseen) > 20


@pytest.mark.parametrize("job", [JOB, FROM_SQUARE], ids=["text", "image"])
def test_an_inpainting_model_without_a_mask_paints_everything(
    engine: Engine, inpainting: Model, job: GenerationParams
):
    made = pixels(_make(engine, job, inpainting))
    assert np.abs(made - pixels(draw(YELLOW_SQUARE, 64))).mean() > 30
