"""How beautiful people found such pictures, from what CLIP sees: LAION's aesthetic predictor.

Its head is five linear layers one after the other with nothing between them (dropout is for
training), so that all of it is one product of matrices.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from hordelib.pictures.finite import insist_on_numbers
from hordelib.pictures.weights import read_weights

LAYERS = (0, 2, 4, 6, 7)  # numbers of the layers with weights
DIGITS = 4


@dataclass(frozen=True, slots=True)
class AestheticHead:
    """A score is `features · weight + bias`; `weight` is (width,) in 64 bits."""

    weight: Tensor
    bias: float
    name: str  # of its file

    def answers(self, features: Tensor) -> list[float]:
        """About 1 (ugly) to 10 of each row of (pictures, width). Raises NotNumbers, ValueError."""
        if features.shape[1] != len(self.weight):
            told = f"{len(self.weight)} wide, and CLIP gives {features.shape[1]}"
            raise ValueError(f"{self.name} is {told}")
        scores = features.double() @ self.weight + self.bias
        insist_on_numbers(scores, self.name)
        return [round(float(score), DIGITS) for score in scores]


def read_aesthetic_head(path: Path) -> AestheticHead:
    """Raises KeyError, RuntimeError and ValueError where the file has other layers."""
    state = read_weights(path)
    weight, bias = torch.ones((1, 1)).double(), torch.zeros(1).double()
    for number in reversed(LAYERS):
        matrix, added = (state[f"layers.{number}.{kind}"].double() for kind in ("weight", "bias"))
        weight, bias = weight @ matrix, bias + weight @ added
    return AestheticHead(weight[0], float(bias[0]), path.name)
