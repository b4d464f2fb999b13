"""A batch whose images have prompts and cfg scales of their own, sampled in as many parts as memory
has room for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, lcm
from typing import Any, Self

import torch
from torch import Tensor

from hordelib.comfyui.device import empty_cache, take_reserve
from hordelib.comfyui.device_faults import is_out_of_memory
from hordelib.memory.estimates import BatchSizes
from hordelib.memory.loans import forget_peak

IMAGES = "images"  # of a conditioning's entry: it is for the next so many images of the batch
MOST_STRETCH = 2  # longer than the longest prompt, a batch's prompts are not repeated for company

Conditioning = list[list[Any]]


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

    A single one for which it does may have the reserve of other programs.
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
            at_once = max(1, (stop - start) // 2)
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
        if not is_out_of_memory(error) or (sizes.now == 1 and not take_reserve()):
            raise
        return None
    sizes.largest = max(sizes.largest, sizes.now)
    return made


@dataclass(frozen=True, slots=True)
class Prompts:
    """Both prompts of every image of a batch.

    `companies` are the images that may be sampled at once, in their order.
    """

    positive: Conditioning
    negative: Conditioning
    is_shared: bool  # all images have all entries
    companies: list[slice]

    @classmethod
    def of(cls, positive: Conditioning, negative: Conditioning, images: int) -> Self:
        if any(IMAGES not in extra for _, extra in positive):
            return cls(positive, negative, is_shared=True, companies=[slice(0, images)])
        each, each_negative = _per_image(positive), _per_image(negative)
        found = companies([cond.shape[1] for cond, _ in each])
        return cls(each, each_negative, is_shared=False, companies=found)

    def of_images(self, images: slice) -> tuple[Conditioning, Conditioning]:
        if self.is_shared:
            positive = [[cond, _with_own_maps(extra, images)] for cond, extra in self.positive]
            return positive, self.negative
        positive, negative = self.positive[images], self.negative[images]
        length = lcm(*(cond.shape[1] for cond, _ in positive))
        return _stacked(positive, length), _stacked(negative, length)


def _with_own_maps(extra: dict[str, Any], images: slice) -> dict[str, Any]:
    """Where each image of the batch has a control map of its own, those of these images."""
    control = extra.get("control")
    if control is None or len(control.cond_hint_original) == 1:
        return extra
    own = control.copy()
    own.cond_hint_original = control.cond_hint_original[images]
    own.previous_controlnet = control.previous_controlnet
    return {**extra, "control": own}


def _per_image(conditioning: Conditioning) -> Conditioning:
    return [entry for entry in conditioning for _ in range(entry[1][IMAGES])]


def _stacked(entries: Conditioning, length: int) -> Conditioning:
    """One entry for a batch, row i from entries[i], its tokens repeated to `length`.

    For cross attention, tokens that come twice change nothing. ComfyUI takes a batch of tokens
    and of pooled outputs as they are (comfy/conds.py).
    """
    first = entries[0][1]
    extra = {key: value for key, value in first.items() if key != IMAGES}
    pooled = [each.get("pooled_output") for _, each in entries]
    if isinstance(first.get("pooled_output"), Tensor):
        extra["pooled_output"] = torch.cat([each for each in pooled if each is not None])
    rows = [cond.repeat(1, length // cond.shape[1], 1) for cond, _ in entries]
    return [[torch.cat(rows), extra]]


def companies(lengths: Sequence[int]) -> list[slice]:
    """Runs of images whose prompts can be repeated to one length; `lengths` are their tokens.

    A common multiple far beyond the longest of them would cost more than it saves, so such images
    are sampled one run after the other.
    """
    found: list[slice] = []
    start = 0
    for i in range(1, len(lengths)):
        run = lengths[start : i + 1]
        if lcm(*run) > MOST_STRETCH * max(run):
            found.append(slice(start, i))
            start = i
    return [*found, slice(start, len(lengths))]


def guided_each(model: Any, cfgs: Sequence[float]) -> tuple[Any, float]:
    """The model and the cfg scale for a batch whose image i has cfgs[i].

    Where they differ, a clone of the model guides each image by its own: ComfyUI's own formula
    (comfy/samplers.py, cfg_function) with a column in the place of the number.
    """
    if len(set(cfgs)) == 1:
        return model, cfgs[0]
    column = torch.tensor(cfgs, device=model.load_device).reshape(-1, 1, 1, 1)

    def guide(arguments: dict[str, Any]) -> Tensor:
        cond, uncond = arguments["cond_denoised"], arguments["uncond_denoised"]
        return arguments["input"] - (uncond + (cond - uncond) * column.to(cond))

    clone = model.clone()
    clone.set_model_sampler_cfg_function(guide, disable_cfg1_optimization=True)
    return clone, max(cfgs)
