"""Samples a batch a part at a time, where memory has no room for all of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil

import comfy.model_management
import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Batch:
    """Some of the images, and where it is among all batches, as far as is known."""

    images: slice
    number: int
    of: int


def in_batches(companies: Sequence[slice], at_once: int, make: Callable[[Batch], Tensor]) -> Tensor:
    """All images, made in batches of at most `at_once`; half as many wherever memory runs out.

    No batch has images of two companies, which are runs of images in their order.
    Raises ComfyUI's OOM_EXCEPTION when there is no room for a single one.
    """
    done: list[Tensor] = []
    left = [(each.start, each.stop) for each in companies]
    while left:
        start, end = left.pop(0)
        stop = min(end, start + at_once)
        rest = [(stop, end), *left] if stop < end else left
        batches = len(done) + 1 + sum(ceil((b - a) / at_once) for a, b in rest)
        made = _unless_too_large(make, Batch(slice(start, stop), len(done), batches))
        if made is None:
            at_once = (stop - start) // 2
            left = [(start, end), *left]
            comfy.model_management.soft_empty_cache()
        else:
            done.append(made)
            left = rest
    return torch.cat(done)


def _unless_too_large(make: Callable[[Batch], Tensor], batch: Batch) -> Tensor | None:
    """None where memory ran out; what the attempt had is let go with its error, by the return."""
    try:
        return make(batch)
    except comfy.model_management.OOM_EXCEPTION:
        if batch.images.stop - batch.images.start == 1:
            raise
        return None
