"""Pictures that start from a picture: how much of it is kept, and what a mask protects."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from hordelib import Engine, GenerationParams
from hordelib.demo_model.shapes import Scene, draw
from hordelib.files.model import Model
from hordelib.job.families import SD1
from hordelib.job.images import SourceImage
from hordelib.job.params import FromImage, Inpaint
from hordelib.job.samplers import SAMPLERS
from tests.hordelib.test_engine import SMALL
from tests.support.looks import Pixels, difference, look, pixels

SOURCE = Scene("square", "yellow", "black")
WANTED = Scene("circle", "red", "blue")


def source(pixels_wide: int = 64, pixels_high: int = 64) -> SourceImage:
    return SourceImage.of_pil(draw(SOURCE, 64).resize((pixels_wide, pixels_high)))


def mask(left: float, right: float, size: int = 64) -> SourceImage:
    """White between two shares of the width."""
    image = Image.new("L", (size, size))
    ImageDraw.Draw(image).rectangle((int(left * size), 0, int(right * size) - 1, size), fill=255)
    return SourceImage.of_pil(image, "L")


def distance(one: Pixels, other: Pixels) -> float:
    return float(np.abs(one - other).mean())


@pytest.fixture
def params() -> GenerationParams:
    """At a cfg of 1: the model, trained on twelve colours, sees any in the faintest noise."""
    return replace(SMALL, prompt=WANTED.caption, cfg=1.0, seed=3, source=FromImage(source()))


def test_a_low_denoising_strength_keeps_the_source(
    engine: Engine, checkpoint: Path, params: GenerationParams
):
    (picture,) = engine.generate(replace(params, denoise=0.1), checkpoint).images
    seen = look(picture, SOURCE)
    assert (seen.colour, seen.background) == ("yellow", "black")
    assert seen.overlap > 0.7


def test_the_full_denoising_strength_leaves_nothing_of_the_source(
    engine: Engine, checkpoint: Path, params: GenerationParams
):
    (picture,) = engine.generate(replace(params, denoise=1.0), checkpoint).images
    seen = look(picture, WANTED)
    assert (seen.colour, seen.background) == ("red", "blue")


def test_more_denoising_is_further_from_the_source(
    engine: Engine, checkpoint: Path, params: GenerationParams
):
    drawn = pixels(draw(SOURCE, 64))
    pictures = [
        engine.generate(replace(params, denoise=denoise), checkpoint).images[0]
        for denoise in (0.1, 0.6, 1.0)
    ]
    near, middle, far = (distance(pixels(picture), drawn) for picture in pictures)
    assert near < middle < far


def test_a_source_of_any_shape_is_brought_to_the_size_asked_for(
    engine: Engine, checkpoint: Path, params: GenerationParams
):
    odd = replace(params, source=FromImage(source(37, 301)), denoise=0.1, width=128)
    (picture,) = engine.generate(odd, checkpoint).images
    assert pixels(picture).shape == (64, 128, 3)
    stretched = draw(SOURCE, 64).resize((128, 64))
    assert distance(pixels(picture), pixels(stretched)) < 30


def test_image_i_of_an_image_to_image_batch_is_the_picture_of_its_seed(
    engine: Engine, checkpoint: Path, params: GenerationParams
):
    batch = replace(params, denoise=0.7, images=2, steps=6)
    together = engine.generate(batch, checkpoint).images
    assert difference(*together) > 2
    for picture in together:
        alone = replace(batch, images=1, seed=picture.seed)
        assert difference(picture, engine.generate(alone, checkpoint).images[0]) <= 2


def test_hires_fix_starts_from_the_source_and_keeps_as_much_of_it(
    engine: Engine, checkpoint: Path, params: GenerationParams
):
    """With a family of the demo model's own size, so that 128 pixels take two passes."""
    small = replace(Model.of_checkpoint(checkpoint), family=replace(SD1, native_side=64))
    large = replace(params, width=128, height=128, hires_fix=True, denoise=0.1, steps=6)
    (picture,) = engine.generate(large, small).images
    assert pixels(picture).shape == (128, 128, 3)
    assert distance(pixels(picture), pixels(draw(SOURCE, 128))) < 30


@pytest.mark.parametrize("denoise", [0.6, 1.0])
@pytest.mark.parametrize("sampler", ["k_euler_a", "ddim"])
def test_pixels_outside_the_mask_stay_exactly_and_those_inside_do_not(
    engine: Engine, checkpoint: Path, params: GenerationParams, denoise: float, sampler: str
):
    half = Inpaint(source(), mask(0.5, 1.0))
    repainted = replace(params, source=half, denoise=denoise, sampler=SAMPLERS[sampler])
    (picture,) = engine.generate(repainted, checkpoint).images
    before, after = pixels(draw(SOURCE, 64)), pixels(picture)
    assert np.abs(before - after)[:, :32].max() == 0
    assert distance(before[:, 32:], after[:, 32:]) > 30


def test_the_masked_part_shows_the_prompt(
    engine: Engine, checkpoint: Path, params: GenerationParams
):
    all_but_an_edge = replace(params, source=Inpaint(source(), mask(0.1, 1.0)), denoise=1.0)
    (picture,) = engine.generate(all_but_an_edge, checkpoint).images
    assert look(picture, WANTED).colour == "red"


def test_a_mask_of_another_size_covers_the_same_part(
    engine: Engine, checkpoint: Path, params: GenerationParams
):
    half = replace(params, source=Inpaint(source(), mask(0.5, 1.0, size=200)))
    (picture,) = engine.generate(half, checkpoint).images
    assert np.abs(pixels(draw(SOURCE, 64)) - pixels(picture))[:, :31].max() == 0


def test_a_batch_repaints_each_picture_by_its_own_seed(
    engine: Engine, checkpoint: Path, params: GenerationParams
):
    batch = replace(params, source=Inpaint(source(), mask(0.5, 1.0)), images=2, steps=6)
    together = engine.generate(batch, checkpoint).images
    assert difference(*together) > 2
    alone = replace(batch, images=1, seed=together[1].seed)
    assert difference(together[1], engine.generate(alone, checkpoint).images[0]) <= 2
