"""Samples a batch a part at a time, where memory has no room for all of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor

from hordelib.comfyui.device import empty_cache
from hordelib.comfyui.device_faults import is_out_of_memory
from hordelib.memory.estimates import BatchSizes
from hordelib.memory.loans import forget_peak


@dataclass(frozen=True, slots=True)
class Batch:
    """Some of the images, and where it is among all batches, as far as is known."""

    images: slice
    number: int
    of: int


def in_batches(
    companies: Sequence[slice],
    sizes: BatchSizes,
    make: Callable[[Batch], Tensor],
    *,
    alone: bool = False,
) -> Tensor:
    """All images, in batches of at most `sizes.at_most`; half as many wherever memory runs out.

    No batch has images of two companies, which are runs of images in their order.
    `alone`: each image by itself. Raises what `make` does, out of memory only when there is no room
    for a single one.
    """
    at_once = 1 if alone else sizes.at_most
    done: list[Tensor] = []
    left = [(each.start, each.stop) for each in companies]
    while left:
        start, end = left.pop(0)
        stop = min(end, start + at_once)
        rest = [(stop, end), *left] if stop < end else left
        batches = len(done) + 1 + sum(ceil((b - a) / at_once) for a, b in rest)
        made = _unless_too_large(make, Batch(slice(start, stop), len(done), batches), sizes)
        if made is None:
            at_once = (stop - start) // 2
            left = [(start, end), *left]
            empty_cache()
            forget_peak()
        else:
            done.append(made)
            left = rest
    return torch.cat(done)


def _unless_too_large(
    make: Callable[[Batch], Tensor], batch: Batch, sizes: BatchSizes
) -> Tensor | None:
    """None where memory ran out; what the attempt had is let go with its error, by the return."""
    sizes.now = batch.images.stop - batch.images.start
    try:
        made = make(batch)
    except Exception as error:
        if sizes.now == 1 or not is_out_of_memory(error):
            raise
        return None
    sizes.largest = max(sizes.largest, sizes.now)
    return made
