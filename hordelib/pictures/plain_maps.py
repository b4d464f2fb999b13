"""Control maps that need no weights: arithmetic on pixels, with the numbers of other workers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hordelib.job.control_types import ControlType
from hordelib.job.params import SEEDS

Pixels = NDArray[np.uint8]  # (height, width, 3), RGB
Floats = NDArray[np.float32]
Draw = Callable[[Pixels], Pixels]

CANNY_LOW, CANNY_HIGH = 100, 200  # of the gradient, 8-bit pictures
PYRAMID_LOW, PYRAMID_HIGH = 64, 128
PYRAMID = [tenth / 10 for tenth in range(2, 11)]  # scales whose edges are added up
PYRAMID_NEW = 0.25  # the share of each scale's edges; what the smaller ones found keeps the rest
DARK = 127  # a scribble is what is darker in its darkest channel
LIGHT = 100  # of `binary`: what is lighter is white
LINE_NEAR, LINE_FAR, LINE_DEPTH = 0.5, 5.0, 16  # of XDoG: both blurs, and how dark a line is
PAPER_BLUR, PAPER_NOISE, LEAST_LINE = 6.0, 8, 16.0  # of the line art
COLOUR_BLOCK = 64  # pixels of a side
WAVE = 256  # pixels between the random points of a shuffle
TILE_STEPS = 3  # halvings of a tile's sides
FOG = 3, 1.0  # side in pixels and sigma of TTPlanet's blur
GUIDED_RADIUS, GUIDED_EPSILON = 7, 0.01


def draw_canny(picture: Pixels) -> Pixels:
    """White edges on black."""
    return _rgb(cv2.Canny(picture, CANNY_LOW, CANNY_HIGH))


def draw_pyramid_canny(picture: Pixels) -> Pixels:
    """Edges of every channel at nine scales: the more scales show one, the lighter it is."""
    height, width, _ = picture.shape
    edges: Floats | None = None
    for scale in PYRAMID:
        size = max(1, int(width * scale)), max(1, int(height * scale))
        small = _pixels(cv2.resize(picture, size, interpolation=cv2.INTER_AREA))
        found = _canny_channels(small)
        if edges is None:
            edges = found
        else:
            grown = cv2.resize(edges, size, interpolation=cv2.INTER_LINEAR)
            edges = ((1 - PYRAMID_NEW) * grown + PYRAMID_NEW * found).astype(np.float32)
    assert edges is not None
    total = edges.sum(axis=2)
    low, high = np.percentile(total, (1, 99))
    return _rgb(_bytes((total - low) * (255.0 / max(float(high - low), 1e-6))))


def draw_binary(picture: Pixels) -> Pixels:
    """What is light in white, the rest in black."""
    return _rgb(np.where(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) > LIGHT, 255, 0))


def draw_scribble(picture: Pixels) -> Pixels:
    """A drawing of dark lines on light paper, inverted: white lines on black."""
    return _rgb(np.where(picture.min(axis=2) < DARK, 255, 0))


def draw_xdog_scribble(picture: Pixels) -> Pixels:
    """What is darker than its surroundings in white: the difference of two Gaussian blurs."""
    values = picture.astype(np.float32)
    near, far = _blurred(values, LINE_NEAR), _blurred(values, LINE_FAR)
    return _rgb(np.where(np.floor((far - near).min(axis=2)) > LINE_DEPTH, 255, 0))


def draw_line_art(picture: Pixels) -> Pixels:
    """Dark lines of a drawing in white, evened out by how dark the drawing's lines are."""
    values = picture.astype(np.float32)
    depth = (_blurred(values, PAPER_BLUR) - values).min(axis=2).clip(0, 255)
    lines = depth[depth > PAPER_NOISE]
    usual = max(LEAST_LINE, float(np.median(lines))) if lines.size else LEAST_LINE
    return _rgb(_bytes(depth * (127.0 / usual)))


def draw_colours(picture: Pixels) -> Pixels:
    """Blocks of 64 pixels, each of its place's colour."""
    height, width, _ = picture.shape
    blocks = max(1, width // COLOUR_BLOCK), max(1, height // COLOUR_BLOCK)
    small = cv2.resize(picture, blocks, interpolation=cv2.INTER_CUBIC)
    return _pixels(cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST))


def draw_luminance(picture: Pixels) -> Pixels:
    """The lightness that eyes see (L of CIELAB)."""
    return _rgb(cv2.cvtColor(picture, cv2.COLOR_RGB2LAB)[..., 0])


def draw_intensity(picture: Pixels) -> Pixels:
    """The strongest channel (V of HSV)."""
    return _rgb(picture.max(axis=2))


def draw_tile(picture: Pixels) -> Pixels:
    """The picture without its details: an eighth of its size, and back by Gaussian pyramids.

    A pyramid's step up puts each pixel where its upper left corner should be; the map is moved back
    by as much.
    """
    height, width, _ = picture.shape
    shrink = 1 << TILE_STEPS
    size = max(1, -(-width // shrink)), max(1, -(-height // shrink))
    tile = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    for _ in range(TILE_STEPS):
        tile = cv2.pyrUp(tile)
    moved = (shrink - 1) / 2
    there = np.array([[1, 0, moved], [0, 1, moved]], np.float32)
    return _pixels(cv2.warpAffine(tile, there, (width, height), borderMode=cv2.BORDER_REPLICATE))


def draw_simple_tile(picture: Pixels) -> Pixels:
    """TTPlanet's simple preprocessor at its own size: a slight blur."""
    side, sigma = FOG
    return _pixels(cv2.GaussianBlur(picture, (side, side), sigma))


def draw_guided_tile(picture: Pixels) -> Pixels:
    """TTPlanet's preprocessor: a slight blur, then textures are smoothed and edges kept."""
    channels = np.stack(cv2.split(draw_simple_tile(picture))).astype(np.float32)
    return _bytes(np.moveaxis(255.0 * _guided(channels / 255.0), 0, -1))


def _guided(values: Floats) -> Floats:
    """The guided filter (He, Sun and Tang 2010) of a colour picture that guides itself.

    With S the covariance of colours in a window and E = S + epsilon, the formula's a = E^-1 S is
    1 - epsilon E^-1. Pictures are (3, height, width), symmetric matrices their upper six numbers.
    """
    mean = _boxed(values)
    rr, rg, rb, gg, gb, bb = _boxed(_products(values)) - _products(mean)
    rr, gg, bb = rr + GUIDED_EPSILON, gg + GUIDED_EPSILON, bb + GUIDED_EPSILON
    adjugate = [
        gg * bb - gb * gb,
        rb * gb - rg * bb,
        rg * gb - rb * gg,
        rr * bb - rb * rb,
        rb * rg - rr * gb,
        rr * gg - rg * rg,
    ]
    determinant = rr * adjugate[0] + rg * adjugate[1] + rb * adjugate[2]
    inverse = np.stack(adjugate) * (GUIDED_EPSILON / determinant)
    return values - _times(_boxed(inverse), values) + _boxed(_times(inverse, mean))


def _products(values: Floats) -> Floats:
    """Each channel with each."""
    return values[[0, 0, 0, 1, 1, 2]] * values[[0, 1, 2, 1, 2, 2]]


def _times(symmetric: Floats, vectors: Floats) -> Floats:
    """At each pixel the product of a symmetric matrix and a vector."""
    rr, rg, rb, gg, gb, bb = symmetric
    r, g, b = vectors
    return np.stack([rr * r + rg * g + rb * b, rg * r + gg * g + gb * b, rb * r + gb * g + bb * b])


def draw_shuffled(seed: int, picture: Pixels) -> Pixels:
    """The picture's colours at other places: each pixel is taken from where smooth noise says.

    The horde's workers draw with seed mod (2^64 - 1) + 1, so that none is 0.
    """
    height, width, _ = picture.shape
    random = np.random.default_rng(seed % (SEEDS - 1) + 1)
    from_x = _smooth_noise(random, height, width) * (width - 1)
    from_y = _smooth_noise(random, height, width) * (height - 1)
    return _pixels(cv2.remap(picture, from_x, from_y, cv2.INTER_LINEAR))


def _smooth_noise(random: np.random.Generator, height: int, width: int) -> Floats:
    """(height, width) from 0 to 1, which it reaches; random points `WAVE` pixels apart."""
    points = random.uniform(size=(height // WAVE + 2, width // WAVE + 2))
    size = width + 2 * WAVE, height + 2 * WAVE
    noise = cv2.resize(points, size, interpolation=cv2.INTER_CUBIC)[WAVE:-WAVE, WAVE:-WAVE]
    noise = noise - noise.min()
    return (noise / max(float(noise.max()), 1e-6)).astype(np.float32)


PLAIN: Mapping[ControlType, Draw] = {
    ControlType.canny: draw_canny,
    ControlType.pyracanny: draw_pyramid_canny,
    ControlType.binary: draw_binary,
    ControlType.scribble: draw_scribble,
    ControlType.scribble_xdog: draw_xdog_scribble,
    ControlType.standard_lineart: draw_line_art,
    ControlType.color: draw_colours,
    ControlType.recolor_luminance: draw_luminance,
    ControlType.recolor_intensity: draw_intensity,
    ControlType.tile: draw_tile,
    ControlType.tile_ttplanet_guided: draw_guided_tile,
    ControlType.tile_ttplanet_simple: draw_simple_tile,
}
# Those that draw another map for each seed.
SEEDED: Mapping[ControlType, Callable[[int, Pixels], Pixels]] = {
    ControlType.shuffle: draw_shuffled,
}


def _canny_channels(picture: Pixels) -> Floats:
    edges = [cv2.Canny(channel, PYRAMID_LOW, PYRAMID_HIGH) for channel in cv2.split(picture)]
    return (np.stack(edges, axis=2) / 255.0).astype(np.float32)


def _blurred(values: Floats, sigma: float) -> Floats:
    return np.asarray(cv2.GaussianBlur(values, (0, 0), sigma), np.float32)


def _boxed(planes: Floats) -> Floats:
    """The mean of each pixel's window, plane by plane."""
    window = 2 * GUIDED_RADIUS + 1, 2 * GUIDED_RADIUS + 1
    means = np.empty_like(planes)
    for mean, plane in zip(means, planes, strict=True):
        mean[:] = cv2.blur(plane, window, borderType=cv2.BORDER_REFLECT)
    return means


def _bytes(values: Floats) -> Pixels:
    return values.clip(0, 255).astype(np.uint8)


def _pixels(values: Any) -> Pixels:
    return np.asarray(values, np.uint8)


def _rgb(drawn: NDArray[Any]) -> Pixels:
    """A map of one channel as 8-bit RGB."""
    return np.stack([drawn] * 3, axis=2).astype(np.uint8)
