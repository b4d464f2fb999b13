"""The plain picture that is uploaded in the place of one that may not leave."""

from __future__ import annotations

from dataclasses import replace

from PIL import Image, ImageDraw, ImageFont

from hordelib.job.images import Picture
from worker.safety.censorship import Cause

BACKGROUND = (38, 40, 46)
FRAME = (112, 116, 128)
TEXT = (226, 228, 234)
LEAST_TEXT = 5  # pixels; what would be smaller can't be read


def censor_card(censored: Picture, cause: Cause) -> Picture:
    """A card as large as the picture, with its seed, and nothing else of it."""
    card = Image.new("RGB", (censored.width, censored.height), BACKGROUND)
    draw = ImageDraw.Draw(card)
    side = min(card.size)
    margin = side // 16
    frame = (margin, margin, card.width - 1 - margin, card.height - 1 - margin)
    draw.rectangle(frame, outline=FRAME, width=max(1, side // 128))
    room = card.width - 4 * margin
    centre = card.width / 2
    _write(draw, (centre, card.height / 2), "CENSORED", "md", room, side / 7)
    _write(draw, (centre, card.height / 2 + margin), cause.value, "ma", room, side / 16)
    return replace(censored, mode="RGB", pixels=card.tobytes())


def _write(
    draw: ImageDraw.ImageDraw,
    at: tuple[float, float],
    text: str,
    anchor: str,
    room: float,
    size: float,
) -> None:
    """One line, in `size` pixels or as small as it has to be to fit into `room`."""
    wide = ImageFont.load_default(size).getlength(text)
    fitting = size * min(1, room / wide)
    if fitting >= LEAST_TEXT:
        draw.text(at, text, TEXT, ImageFont.load_default(fitting), anchor)
