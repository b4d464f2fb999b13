"""BlurHash, held to what the format's reference program says of the same pictures."""

from __future__ import annotations

import pytest
from PIL import Image

from hordelib.alchemy.blurhash import blurhash


def ramp() -> Image.Image:
    image = Image.new("RGB", (4, 4))
    for place in range(16):
        colour = (place * 16, 255 - place * 16, place * 40 % 256)
        image.putpixel((place % 4, place // 4), colour)
    return image


@pytest.mark.parametrize(
    ("image", "components", "text"),
    [
        (ramp(), (4, 3), "L~GvOlu2S^%MHRX}kPTVLAXjofXg"),
        (Image.new("RGB", (8, 8), "red"), (4, 3), "LfTI:j|cfQ|c|csUfQsUfQfQfQfQ"),
        (Image.new("RGB", (8, 8), "red"), (1, 1), "00TI:j"),
    ],
    ids=["a ramp", "one colour", "the average alone"],
)
def test_a_picture_has_the_text_of_the_reference_program(
    image: Image.Image, components: tuple[int, int], text: str
):
    assert blurhash(image, *components) == text
