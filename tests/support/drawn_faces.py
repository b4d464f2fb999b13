"""Faces drawn with a few ellipses, that a detector of real faces takes for one."""

from __future__ import annotations

from PIL import Image, ImageDraw, ImageFilter

SIDE = 512  # of the drawing below, in pixels

_HAIR, _SKIN, _SHADE = (60, 40, 30), (224, 180, 150), (205, 158, 130)
_WHITE, _IRIS, _BLACK, _LIPS, _MOUTH = (
    (250,) * 3,
    (70, 50, 40),
    (10,) * 3,
    (170, 80, 80),
    (110, 40, 40),
)
BACKGROUND = (90, 120, 150)


def draw_face(side: int = SIDE) -> Image.Image:
    """A face from the front, its eyes on the upper half, in the middle of a square picture."""
    image = Image.new("RGB", (SIDE, SIDE), BACKGROUND)
    draw = ImageDraw.Draw(image)
    draw.ellipse((130, 60, 380, 400), fill=_HAIR)
    draw.ellipse((156, 96, 356, 396), fill=_SKIN)
    for x in (212, 300):
        draw.ellipse((x - 26, 205, x + 26, 233), fill=_WHITE)
        draw.ellipse((x - 12, 207, x + 12, 231), fill=_IRIS)
        draw.ellipse((x - 6, 213, x + 6, 225), fill=_BLACK)
        draw.rectangle((x - 30, 182, x + 30, 190), fill=_HAIR)
    draw.polygon([(256, 225), (240, 290), (272, 290)], fill=_SHADE)
    draw.ellipse((215, 322, 297, 350), fill=_LIPS)
    draw.rectangle((222, 334, 290, 337), fill=_MOUTH)
    return image.filter(ImageFilter.GaussianBlur(4)).resize((side, side))
