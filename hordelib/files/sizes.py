"""How large the parts of a model are, from what its files say of themselves; no tensor is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

from hordelib.files.headers import read_shapes
from hordelib.files.model import Model

# How the names of a checkpoint's parts start; a text encoder's are called in many ways.
_STARTS = {"unet": ("model.diffusion_model.",), "vae": ("first_stage_model.", "vae.")}


# Bytes of a number of a part, which has so many bytes in the file, and how many there are of them.
WeightBytes = Callable[[str, float, int], float]


@dataclass(frozen=True, slots=True)
class ModelSize:
    """Bytes of the weights, as they are computed with."""

    largest_part_bytes: int
    vae_bytes: int


def size_of(model: Model, weight_bytes: WeightBytes) -> ModelSize:
    """With each number as `weight_bytes` says. Raises ModelBroken and OSError where a file can't be
    read."""
    files = model.files.items()
    parts = [part for title, path in files for part in _parts(title, path, weight_bytes)]
    vaes = [size_bytes for name, size_bytes in parts if name == "vae"]
    return ModelSize(max((size_bytes for _, size_bytes in parts), default=0), max(vaes, default=0))


def _parts(title: str, path: Path, weight_bytes: WeightBytes) -> Iterator[tuple[str, int]]:
    """Names and bytes; a part alone in its file is called as the spine's loader."""
    file_bytes = path.stat().st_size
    shapes = read_shapes(path)
    values: Counter[str] = Counter()
    for name, shape in shapes.items():
        values[_part(name, title)] += prod(shape)
    each_bytes = file_bytes / max(values.total(), 1)
    for part, numbers in values.items():
        yield part, int(numbers * weight_bytes(part, each_bytes, numbers))


def _part(tensor: str, title: str) -> str:
    return next((part for part, starts in _STARTS.items() if tensor.startswith(starts)), title)
