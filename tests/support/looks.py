"""Looking at a picture of the demo model: which colours, and where the shape is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

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


class Apart(NamedTuple):
    """How far two pictures are from each other, where another kernel may have made one of them.

    It rounds otherwise, and samplers carry that on: single values then move by several of 255.
    """

    mean: float  # of all channels of all pixels, 0 to 255
    share: float  # of them that are more than VISIBLE apart, 0 to 1

    @property
    def is_nothing(self) -> bool:
        """Whether nobody could tell them from each other."""
        return self.mean <= MOST_MEAN and self.share <= MOST_SHARE


VISIBLE, MOST_MEAN, MOST_SHARE = 2, 0.5, 0.02


def apart(one: Picture, other: Picture) -> Apart:
    between = np.abs(pixels(one) - pixels(other))
    return Apart(float(between.mean()), float((between > VISIBLE).mean()))


def _nearer(seen: Pixels, colour: tuple[int, ...], other: tuple[int, ...]) -> NDArray[np.bool_]:
    return _distance(seen, colour) < _distance(seen, other)


def _distance(seen: Pixels, colour: tuple[int, ...]) -> NDArray[np.float64]:
    return np.linalg.norm(seen - np.array(colour, dtype=np.int16), axis=-1)


def _name(colour: NDArray[np.float64]) -> str:
    return min(COLOURS, key=lambda name: float(np.linalg.norm(colour - np.array(COLOURS[name]))))
