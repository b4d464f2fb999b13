"""BlurHash: a few colours of a picture as a short text, for what is shown before it has loaded.

The format: https://github.com/woltapp/blurhash/blob/master/Algorithm.md
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz#$%*+,-.:;=?@[]^_{|}~"  # 83
LARGEST_STEPS = 82  # of the one digit for the largest coefficient; a step is 1/166
COLOUR_STEPS = 9  # of each coefficient of a colour, to either side of 0


def blurhash(image: Image.Image, along: int, down: int) -> str:
    """Of an RGB picture, with 1 to 9 cosines `along` its width and `down` its height.

    It takes as long as there are pixels: make the picture small before.
    """
    colours = _coefficients(image, along, down)
    average, others = colours[0], colours[1:]
    largest = float(np.abs(others).max(initial=0.0))
    steps = max(0, min(LARGEST_STEPS, math.floor(largest * 166 - 0.5))) if len(others) else 0
    scale = (steps + 1) / 166 if len(others) else 1.0
    red, green, blue = (_to_srgb(float(value)) for value in average)
    return "".join(
        (
            _digits((along - 1) + (down - 1) * 9, 1),
            _digits(steps, 1),
            _digits((red << 16) + (green << 8) + blue, 4),
            *(_digits(_quantised(colour / scale), 2) for colour in others),
        )
    )


def _coefficients(image: Image.Image, along: int, down: int) -> NDArray[np.float64]:
    """(down * along, 3): how much of each product of two cosines is in the linear colours."""
    pixels = _to_linear(np.asarray(image, dtype=np.float64) / 255)
    across = _cosines(along, image.width)
    below = _cosines(down, image.height)
    found = np.einsum("yh,xw,hwc->yxc", below, across, pixels) / (image.width * image.height)
    found *= 2
    found[0, 0] /= 2
    return found.reshape(-1, 3)


def _cosines(count: int, size: int) -> NDArray[np.float64]:
    return np.cos(np.pi * np.outer(np.arange(count), np.arange(size)) / size)


def _to_linear(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def _to_srgb(value: float) -> int:
    value = min(1.0, max(0.0, value))
    curved = value * 12.92 if value <= 0.0031308 else 1.055 * value ** (1 / 2.4) - 0.055
    return int(curved * 255 + 0.5)


def _quantised(colour: NDArray[np.float64]) -> int:
    """Three numbers from -1 to 1 by the root of their size, as digits of base 19."""
    curved = np.sign(colour) * np.sqrt(np.abs(colour)) * COLOUR_STEPS + COLOUR_STEPS + 0.5
    red, green, blue = np.clip(np.floor(curved), 0, 2 * COLOUR_STEPS).astype(int).tolist()
    return (red * 19 + green) * 19 + blue


def _digits(value: int, length: int) -> str:
    return "".join(DIGITS[value // 83**place % 83] for place in reversed(range(length)))
