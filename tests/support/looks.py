"""Looking at a picture of the demo model: which colours, and where the shape is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hordelib.demo_model.shapes import COLOURS, Scene, draw
from hordelib.job.images import Picture

Pixels = NDArray[np.int16]


@dataclass(frozen=True)
class Look:
    """What a scene's picture shows: colours by name, and the overlap (IoU) with the drawn shape."""

    colour: str
    background: str
    overlap: float


def look(picture: Picture | Image.Image, scene: Scene) -> Look:
    """The medians over the region where the shape should be, and over the rest of the picture."""
    seen = pixels(picture)
    drawn = pixels(draw(scene, seen.shape[1]))
    shape = _nearer(drawn, COLOURS[scene.colour], COLOURS[scene.background])
    painted = _nearer(seen, COLOURS[scene.colour], COLOURS[scene.background])
    union = (shape | painted).sum()
    return Look(
        colour=_name(np.median(seen[shape], axis=0)),
        background=_name(np.median(seen[~shape], axis=0)),
        overlap=float((shape & painted).sum() / union),
    )


def pixels(picture: Picture | Image.Image) -> Pixels:
    """(height, width, 3), signed, so that differences don't wrap."""
    image = picture.to_pil() if isinstance(picture, Picture) else picture.convert("RGB")
    return np.asarray(image, dtype=np.int16)


def difference(one: Picture, other: Picture) -> int:
    """The largest difference of any channel of any pixel, 0 to 255."""
    return int(np.abs(pixels(one) - pixels(other)).max())


def _nearer(seen: Pixels, colour: tuple[int, ...], other: tuple[int, ...]) -> NDArray[np.bool_]:
    return _distance(seen, colour) < _distance(seen, other)


def _distance(seen: Pixels, colour: tuple[int, ...]) -> NDArray[np.float64]:
    return np.linalg.norm(seen - np.array(colour, dtype=np.int16), axis=-1)


def _name(colour: NDArray[np.float64]) -> str:
    return min(COLOURS, key=lambda name: float(np.linalg.norm(colour - np.array(COLOURS[name]))))
