"""Facts, colours and vectors of the demo's pictures, which are drawn and not generated."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from resvg_py import svg_to_bytes

from hordelib.alchemy.plain_forms import VECTOR_SIDE, palette, vectorize
from hordelib.demo_model.shapes import COLOURS, Scene, draw
from hordelib.job.images import SourceImage

RED, BLUE = COLOURS["red"], COLOURS["blue"]


def scene(side: int) -> Image.Image:
    return draw(Scene("circle", "red", "blue"), side)


def hexadecimal(colour: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def rendered(svg: str, side: int) -> Image.Image:
    with Image.open(io.BytesIO(svg_to_bytes(svg_string=svg, skip_system_fonts=True))) as image:
        image.load()
    assert image.size == (side, side)
    return image.convert("RGB")


def pixels(image: Image.Image) -> NDArray[np.float64]:
    return np.asarray(image, dtype=float)


@pytest.mark.parametrize(("side", "traced_side"), [(256, 256), (VECTOR_SIDE + 200, VECTOR_SIDE)])
def test_vectors_render_back_to_the_picture(side: int, traced_side: int):
    """A larger picture is traced at VECTOR_SIDE."""
    image = scene(side)
    back = rendered(vectorize(SourceImage.of_pil(image)), traced_side)
    wanted = image.resize((traced_side, traced_side), Image.Resampling.LANCZOS)
    difference = np.abs(pixels(back) - pixels(wanted)).max(axis=2)
    assert np.mean(difference > 32) < 0.01, "but for the edge of the circle"


def test_a_palette_finds_the_colours_with_their_shares():
    image = scene(256)
    is_red: NDArray[np.bool_] = np.abs(pixels(image) - RED).max(axis=2) < 64
    red_share = np.count_nonzero(is_red) / is_red.size
    colours: list[dict[str, Any]] = palette(SourceImage.of_pil(image))["colors"]
    first, second, *others = colours
    assert (first["hex"], second["hex"]) == (hexadecimal(BLUE), hexadecimal(RED))
    assert second["proportion"] == pytest.approx(red_share, abs=0.02)
    assert first["proportion"] == pytest.approx(1 - red_share, abs=0.02)
    assert sum(each["proportion"] for each in others) < 0.03
