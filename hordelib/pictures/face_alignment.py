"""Faces turned upright at the size that face fixers know, and put back where they were."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

SIDE = 512  # pixels; of an aligned face
# Where eyes, nose and corners of the mouth are in the FFHQ data set at 512 pixels, which all face
# fixers were trained on (the mean of its landmarks, as facexlib has it).
LANDMARKS = (
    (192.98, 239.95),
    (318.90, 240.19),
    (256.63, 314.02),
    (201.26, 371.41),
    (313.09, 371.15),
)
# The part of an aligned face that goes back: a rounded box around the face, whole up to CORE of its
# size and fading from there, so that hair and background stay the picture's own.
CENTRE, HALF_SIZE, ROUNDNESS, CORE = (256.0, 272.0), (196.0, 236.0), 3, 0.75


@dataclass(frozen=True, slots=True)
class Pose:
    """A similarity: the picture's point of an aligned point (x, y) is a turned, scaled, moved one.

    x' = cos x - sin y + left; y' = sin x + cos y + top; `cos` and `sin` have the scale in them.
    """

    cos: float
    sin: float
    left: float
    top: float

    @property
    def scale(self) -> float:
        """The picture's pixels per aligned pixel."""
        return math.hypot(self.cos, self.sin)

    def to_picture(self, points: Tensor) -> Tensor:
        """(..., 2) aligned points, x before y, to the picture's."""
        x, y = points.unbind(-1)
        turned = (self.cos * x - self.sin * y, self.sin * x + self.cos * y)
        return torch.stack(turned, -1) + points.new_tensor((self.left, self.top))

    def to_aligned(self, points: Tensor) -> Tensor:
        """The way back."""
        x, y = (points - points.new_tensor((self.left, self.top))).unbind(-1)
        turned = (self.cos * x + self.sin * y, self.cos * y - self.sin * x)
        return torch.stack(turned, -1) / self.scale**2


def pose(landmarks: Tensor) -> Pose:
    """The similarity that fits a face's landmarks (5, 2) best, by least squares (Umeyama 1991)."""
    aligned, seen = landmarks.new_tensor(LANDMARKS).double(), landmarks.double()
    middle, seen_middle = aligned.mean(0), seen.mean(0)
    (x, y), (seen_x, seen_y) = (aligned - middle).T, (seen - seen_middle).T
    spread = float((x * x + y * y).sum())
    cos = float((x * seen_x + y * seen_y).sum()) / spread
    sin = float((x * seen_y - y * seen_x).sum()) / spread
    turned = Pose(cos, sin, 0.0, 0.0).to_picture(middle)
    return Pose(cos, sin, float(seen_middle[0] - turned[0]), float(seen_middle[1] - turned[1]))


def cut_out(image: Tensor, face: Pose) -> Tensor:
    """The aligned face (1, 3, 512, 512) of a picture (1, 3, height, width)."""
    points = face.to_picture(_grid(0, 0, SIDE, SIDE, image))
    return _sample(_shrunk(image, face.scale), _relative(points, image), padding="border")


def put_back(image: Tensor, restored: Tensor, face: Pose, strength: float) -> Tensor:
    """The picture with the restored face in its place; a new tensor.

    `strength` 0 leaves every pixel as it is, 1 gives the restored face in full.
    """
    left, top, right, bottom = _bounds(face, image)
    if left >= right or top >= bottom:
        return image
    where = _relative(face.to_aligned(_grid(left, top, right, bottom, image)), restored)
    there = strength * _sample(soft_mask(restored), where, padding="zeros")
    result = image.clone()
    part = result[..., top:bottom, left:right]
    drawn = _sample(_shrunk(restored, 1 / face.scale), where, padding="border")
    part.lerp_(drawn, there.expand_as(part))
    return result


def soft_mask(like: Tensor) -> Tensor:
    """(1, 1, 512, 512): 1 on the face, falling smoothly to 0 around it."""
    x, y = _grid(0, 0, SIDE, SIDE, like).unbind(-1)
    across, down = (x - CENTRE[0]) / HALF_SIZE[0], (y - CENTRE[1]) / HALF_SIZE[1]
    radius = (across.abs() ** ROUNDNESS + down.abs() ** ROUNDNESS) ** (1 / ROUNDNESS)
    inward = ((1 - radius) / (1 - CORE)).clamp(0, 1)
    return (inward**2 * (3 - 2 * inward))[None, None]


def _bounds(face: Pose, image: Tensor) -> tuple[int, int, int, int]:
    """The part of the picture that the aligned square covers: left, top, right, bottom."""
    corners = face.to_picture(torch.tensor([(0.0, 0.0), (SIDE, 0), (0, SIDE), (SIDE, SIDE)]))
    height, width = image.shape[-2:]
    x, y = corners.T
    left, right = math.floor(float(x.min())), math.ceil(float(x.max()))
    top, bottom = math.floor(float(y.min())), math.ceil(float(y.max()))
    return max(left, 0), max(top, 0), min(right, width), min(bottom, height)


def _grid(left: int, top: int, right: int, bottom: int, like: Tensor) -> Tensor:
    """(height, width, 2): each pixel's x and y."""
    device = like.device
    rows = torch.arange(top, bottom, device=device, dtype=torch.float32)
    columns = torch.arange(left, right, device=device, dtype=torch.float32)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack((x, y), -1)


def _relative(points: Tensor, image: Tensor) -> Tensor:
    """Points in pixels of an image to grid_sample's -1 to 1, edge to edge."""
    height, width = image.shape[-2:]
    return (points + 0.5) / points.new_tensor((width, height)) * 2 - 1


def _shrunk(image: Tensor, factor: float) -> Tensor:
    """So that nothing is skipped over where only each `factor`th pixel would be read."""
    if factor <= 1:
        return image
    size = [max(1, round(side / factor)) for side in image.shape[-2:]]
    return F.interpolate(image, size, mode="bilinear", antialias=True)


def _sample(image: Tensor, points: Tensor, padding: str) -> Tensor:
    return F.grid_sample(image, points[None], padding_mode=padding, align_corners=False)
