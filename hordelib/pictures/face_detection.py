"""Where the faces of a picture are: MTCNN, three small networks that sift candidates.

Zhang et al. 2016, "Joint Face Detection and Alignment using Multi-task Cascaded Convolutional
Networks". The networks are written here for torch; their weights come with the package `mtcnn`,
whose own code needs TensorFlow and is never imported.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import distribution
from itertools import takewhile
from pathlib import Path
from typing import Any

import joblib
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.ops import nms, roi_align

SMALLEST = 20  # pixels; of the square around a face
CELL, STRIDE = 12, 2  # what the first network looks at, and how far apart, in pixels
SHRINK = 0.709  # from one size of the picture to the next, about half the area
# The paper's thresholds but for the last: a wrong face would be painted into the picture.
PROPOSED, REFINED, CERTAIN = 0.6, 0.7, 0.9
WEIGHTS = "mtcnn/assets/weights"


@dataclass(frozen=True, slots=True)
class Faces:
    """The faces of one picture, the surest first. All in pixels, x before y."""

    boxes: Tensor  # (faces, 4): left, top, right, bottom
    landmarks: Tensor  # (faces, 5, 2): eyes, nose, corners of the mouth; left ones first

    def __len__(self) -> int:
        return len(self.boxes)


class Stage(nn.Module):
    """One of the three networks: common layers, and a head for each thing that it tells."""

    def __init__(self, body: Sequence[nn.Module], *heads: nn.Module):
        super().__init__()
        self.body = nn.Sequential(*body)
        self.heads = nn.ModuleList(heads)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Corrections of the box (B, 4…), the landmarks where it knows them, and the score."""
        seen = self.body(images)
        *told, score = (head(seen) for head in self.heads)
        return *told, score.softmax(1)[:, 1]


class FaceDetector:
    """Finds upright faces, up to about 30 degrees off, of 20 pixels and more."""

    def __init__(self, propose: Stage, refine: Stage, describe: Stage):
        self._propose, self._refine, self._describe = propose, refine, describe

    @property
    def stages(self) -> tuple[nn.Module, ...]:
        return self._propose, self._refine, self._describe

    @torch.inference_mode()
    def find(self, image: Tensor) -> Faces:
        """`image` is (1, 3, height, width), 0 to 1, on the detector's device."""
        image = (image * 255 - 127.5) / 128
        boxes = self._refined(image, self._proposed(image))
        if not len(boxes):
            return Faces(boxes, boxes.new_empty(0, 5, 2))
        offsets, marks, scores = self._describe(_cut(image, boxes, 48))
        sizes = boxes[:, 2:] - boxes[:, :2]
        landmarks = boxes[:, None, :2] + marks.unflatten(1, (2, 5)).mT * sizes[:, None]
        boxes = _corrected(boxes, offsets)
        kept = _best(boxes, scores, CERTAIN)
        return Faces(boxes[kept], landmarks[kept])

    def _proposed(self, image: Tensor) -> Tensor:
        found = [self._proposed_at(image, scale) for scale in _scales(*image.shape[-2:])]
        boxes = torch.cat([boxes for boxes, _ in found] or [image.new_empty(0, 4)])
        scores = torch.cat([scores for _, scores in found] or [image.new_empty(0)])
        return _squared(boxes[nms(boxes, scores, 0.7)])

    def _proposed_at(self, image: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        size = [math.ceil(side * scale) for side in image.shape[-2:]]
        offsets, scores = self._propose(F.interpolate(image, size, mode="area"))
        rows, columns = torch.where(scores[0] > PROPOSED)
        corner = torch.stack((columns, rows), 1) * STRIDE
        boxes = torch.cat((corner, corner + CELL), 1) / scale
        boxes, scores = _corrected(boxes, offsets[0, :, rows, columns].T), scores[0, rows, columns]
        kept = nms(boxes, scores, 0.5)
        return boxes[kept], scores[kept]

    def _refined(self, image: Tensor, boxes: Tensor) -> Tensor:
        if not len(boxes):
            return boxes
        offsets, scores = self._refine(_cut(image, boxes, 24))
        boxes = _corrected(boxes, offsets)
        return _squared(boxes[_best(boxes, scores, REFINED)])


def load_detector() -> FaceDetector:
    """The detector, on the CPU, with the weights of the installed package `mtcnn`."""
    folder = Path(str(distribution("mtcnn").locate_file(WEIGHTS)))
    files = {"pnet": _proposer, "rnet": _refiner, "onet": _describer}
    return FaceDetector(*(_filled(make(), folder / f"{name}.lz4") for name, make in files.items()))


def _proposer() -> Stage:
    body = [*_layers(3, 10, 3), _halve(2), *_layers(10, 16, 3), *_layers(16, 32, 3)]
    return Stage(body, nn.Conv2d(32, 4, 1), nn.Conv2d(32, 2, 1))


def _refiner() -> Stage:
    body = [*_layers(3, 28, 3), _halve(3), *_layers(28, 48, 3), nn.MaxPool2d(3, 2)]
    body += [*_layers(48, 64, 2), _Columns(), nn.Linear(576, 128), nn.PReLU(128)]
    return Stage(body, nn.Linear(128, 4), nn.Linear(128, 2))


def _describer() -> Stage:
    body = [*_layers(3, 32, 3), _halve(3), *_layers(32, 64, 3), nn.MaxPool2d(3, 2)]
    body += [*_layers(64, 64, 3), _halve(2), *_layers(64, 128, 2)]
    body += [_Columns(), nn.Linear(1152, 256), nn.PReLU(256)]
    return Stage(body, nn.Linear(256, 4), nn.Linear(256, 10), nn.Linear(256, 2))


def _layers(inputs: int, outputs: int, kernel: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, kernel), nn.PReLU(outputs)]


def _halve(kernel: int) -> nn.Module:
    return nn.MaxPool2d(kernel, 2, ceil_mode=True)


class _Columns(nn.Module):
    """Flattened column by column: the networks were first trained in Matlab."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 3, 2, 1).flatten(1)


def _filled(stage: Stage, file: Path) -> Stage:
    """Weights as Keras keeps them, layer after layer: kernels (height, width, inputs, outputs)."""
    weights: list[NDArray[Any]] = joblib.load(file)
    for parameter, weight in zip(stage.parameters(), weights, strict=True):
        values = torch.tensor(weight)
        parameter.data = _TO_TORCH[values.dim()](values).contiguous().requires_grad_(False)
    return stage.eval()


_TO_TORCH: dict[int, Callable[[Tensor], Tensor]] = {
    1: lambda bias: bias,
    2: lambda matrix: matrix.T,
    3: lambda slopes: slopes.flatten(),
    4: lambda kernel: kernel.permute(3, 2, 0, 1),
}


def _scales(height: int, width: int) -> Iterator[float]:
    """Sizes at which a face of SMALLEST pixels and more fills a cell, the largest first."""
    scales = (CELL / SMALLEST * SHRINK**step for step in range(100))
    return takewhile(lambda scale: min(height, width) * scale >= CELL, scales)


def _cut(image: Tensor, boxes: Tensor, side: int) -> Tensor:
    """The boxes' content at side x side pixels, averaged; grey where a box leaves the picture."""
    return roi_align(image, [boxes], side, aligned=True)


def _corrected(boxes: Tensor, offsets: Tensor) -> Tensor:
    """Each side moved by its offset, in widths or heights of the box."""
    return boxes + offsets * (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)


def _squared(boxes: Tensor) -> Tensor:
    half = (boxes[:, 2:] - boxes[:, :2]).amax(1, keepdim=True) / 2
    middle = (boxes[:, 2:] + boxes[:, :2]) / 2
    return torch.cat((middle - half, middle + half), 1)


def _best(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Indices of the boxes over the threshold, the best first, without those that overlap one."""
    over = torch.where(scores > threshold)[0]
    return over[nms(boxes[over], scores[over], 0.6)]
