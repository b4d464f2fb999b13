"""How much of each pixel is the subject's, and in which colour: cutting out with soft edges."""

from __future__ import annotations

import numpy as np
import scipy  # its parts are imported when they are used, which few engines do
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

Values = NDArray[np.float64]
Flags = NDArray[np.bool_]

# What the horde's workers ask of rembg: surely the subject, surely not, and the width in pixels of
# the band between them that is left open.
SURE, SURELY_NOT, OPEN_BAND = 240, 10, 10

WINDOW = 3
SMOOTHNESS = 1e-7  # the epsilon of the matting Laplacian
TOLERANCE, MAX_ITERATIONS = 1e-5, 2000
WIDE, NARROW = 45, 3  # radii in pixels; Forte's 90 and 6 are windows


def trimap(mask: NDArray[np.uint8]) -> Values:
    """1 where `mask` is sure of the subject, 0 where it is sure of none, 0.5 in between."""
    square = np.ones((OPEN_BAND, OPEN_BAND), bool)
    subject = scipy.ndimage.binary_erosion(mask > SURE, square, border_value=1)
    nothing = scipy.ndimage.binary_erosion(mask < SURELY_NOT, square, border_value=1)
    return np.where(subject, 1.0, np.where(nothing, 0.0, 0.5))


def closed_form_alpha(image: Values, known: Values) -> Values:
    """How much of each pixel is the subject's, 0 to 1, where the trimap `known` leaves it open.

    Levin et al. 2008, "A Closed-Form Solution to Natural Image Matting". `image` is (height, width,
    3), 0 to 1. Only windows that touch an open pixel are looked at.
    """
    is_open = known == 0.5
    if not is_open.any() or min(known.shape) < WINDOW:
        return known
    laplacian = _matting_laplacian(image, is_open)[is_open.ravel()]
    inside, outside = laplacian[:, is_open.ravel()], laplacian[:, ~is_open.ravel()]
    wanted = -(outside @ known.ravel()[~is_open.ravel()])
    scaled = scipy.sparse.diags_array(1 / inside.diagonal())
    solution, _ = scipy.sparse.linalg.cg(
        inside,
        wanted,
        x0=np.full(len(wanted), 0.5),
        rtol=TOLERANCE,
        maxiter=MAX_ITERATIONS,
        M=scaled,
    )
    alpha = known.copy()
    alpha[is_open] = solution.clip(0, 1)
    return alpha


def subject_colours(image: Tensor, alpha: Tensor) -> Tensor:
    """The subject's own colours, without what shines through at its edges.

    Forte 2021, "Approximate Fast Foreground Colour Estimation" (blur fusion, two passes). `image`
    is (1, 3, height, width), `alpha` (1, 1, height, width), both 0 to 1.
    """
    subject = image
    for radius in (WIDE, NARROW):
        subject = _blur_fusion(image, subject, alpha, radius)
    return subject


def _blur_fusion(image: Tensor, subject: Tensor, alpha: Tensor, radius: int) -> Tensor:
    near = _mean(subject * alpha, radius) / (_mean(alpha, radius) + 1e-5)
    behind = _mean(image * (1 - alpha), radius) / (_mean(1 - alpha, radius) + 1e-5)
    rest = image - alpha * near - (1 - alpha) * behind
    return (near + alpha * rest).clamp(0, 1)


def _mean(image: Tensor, radius: int) -> Tensor:
    """Of the window around each pixel, as far as it is inside."""
    size = 2 * radius + 1
    for window, padding in (((size, 1), (radius, 0)), ((1, size), (0, radius))):
        image = F.avg_pool2d(image, window, 1, padding, count_include_pad=False)
    return image


def _matting_laplacian(image: Values, is_open: Flags) -> scipy.sparse.csr_array:
    """(pixels, pixels); rows of open pixels are complete. Levin's equation 12."""
    height, width = is_open.shape
    pixels = _windows(np.arange(height * width, dtype=np.int64).reshape(height, width))
    near_open = scipy.ndimage.binary_dilation(is_open, np.ones((WINDOW, WINDOW), bool))
    pixels = pixels[near_open[1:-1, 1:-1]].reshape(-1, WINDOW**2)
    weights = np.eye(WINDOW**2) - _likeness(image.reshape(-1, 3)[pixels])
    rows, columns = np.repeat(pixels, WINDOW**2, axis=1), np.tile(pixels, (1, WINDOW**2))
    entries = (weights.ravel(), (rows.ravel(), columns.ravel()))
    return scipy.sparse.csr_array(entries, shape=(height * width, height * width))


def _likeness(colours: Values) -> Values:
    """(windows, 9, 9): how alike two pixels of a window are, for windows of colours (..., 9, 3)."""
    size = WINDOW**2
    apart = colours - colours.mean(1, keepdims=True)
    covariance: Values = apart.swapaxes(1, 2) @ apart / size + SMOOTHNESS / size * np.eye(3)
    return (1 + apart @ np.linalg.inv(covariance) @ apart.swapaxes(1, 2)) / size


def _windows(grid: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.lib.stride_tricks.sliding_window_view(grid, (WINDOW, WINDOW))
