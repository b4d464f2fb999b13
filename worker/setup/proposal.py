"""Which models suit a machine: pure, from what the horde says of them and what the machine has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isqrt

from hordelib.job.families import FAMILIES
from worker.horde.kudos import PricedImage, image_reward
from worker.models.files.expected_size import expected_misfit, expected_pixels
from worker.models.files.on_disk import DISK_FLOOR_BYTES, Stock
from worker.models.memory_fit import ComputeMemory

MOST_PROPOSED = 3  # the more models, the more often one makes way for another in memory
DISK_SHARE = 0.5  # of what is free, beside the reserve, that proposed models may take
POWER_PIXELS = 64 * 64 * 8  # of max_power 1
LEAST_POWER, MOST_POWER = 8, 64  # 512x512, and 1448x1448: larger pictures are rare at the horde
LEAST_SHARE = 0.5  # of a family's usual picture, so that the horde has jobs for it
USUAL_STEPS = 30
# Of families that were made to need few.
FEW_STEPS: Mapping[str, int] = {"flux_1": 4, "z_image_turbo": 8, "krea2_turbo": 8}


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposedModel:
    """A model of the horde's list, as an owner chooses by it.

    `download_bytes` is 0 for one that is here, and where the list has no size (`is_size_known`).
    `kudos` is the reward of a picture with `side` x `side` pixels and `steps` steps; `pictures` how
    many the whole horde made with it in a month, None where it did not say. `problem` says why it
    is not for this machine; `is_proposed` that it is one of those to begin with.
    """

    name: str
    family: str
    size_bytes: int
    download_bytes: int
    is_here: bool
    side: int
    steps: int
    kudos: float
    pictures: int | None
    largest_side: int
    problem: str = ""
    is_proposed: bool = False


def propose(
    stocks: Sequence[Stock],
    uses: Mapping[str, int] | None,
    memory: ComputeMemory,
    free_bytes: int,
    too_new: Mapping[str, str],
) -> tuple[ProposedModel, ...]:
    """All of the list's models: those that suit first, of these the most used ones.

    `too_new` says of models why the ComfyUI that is here can't run them.
    """
    rows = [_row(stock, uses, memory, free_bytes, too_new) for stock in stocks]
    rows.sort(key=lambda row: (bool(row.problem), -(row.pictures or 0)))
    return tuple(_marked(rows, free_bytes))


def power_for(rows: Sequence[ProposedModel]) -> int:
    """max_power for these models: their usual pictures, as far as there is room for each."""
    wanted = max((row.side for row in rows), default=0) ** 2
    room = min((row.largest_side for row in rows), default=0) ** 2
    return min(max(min(wanted, room) // POWER_PIXELS, LEAST_POWER), MOST_POWER)


def _row(
    stock: Stock,
    uses: Mapping[str, int] | None,
    memory: ComputeMemory,
    free_bytes: int,
    too_new: Mapping[str, str],
) -> ProposedModel:
    entry = stock.entry
    family = FAMILIES.get(entry.baseline)
    side = family.native_side if family else 512
    steps = FEW_STEPS.get(entry.baseline, USUAL_STEPS)
    pixels = expected_pixels(entry, memory)
    row = ProposedModel(
        name=entry.name,
        family=entry.family,
        size_bytes=entry.size_bytes,
        download_bytes=stock.to_come_bytes,
        is_here=not stock.is_wanting,
        side=side,
        steps=steps,
        kudos=usual_kudos(entry.baseline, side, steps),
        pictures=None if uses is None else uses.get(entry.name, 0),
        largest_side=isqrt(pixels) // 64 * 64,
    )
    return replace(row, problem=_problem(stock, row, memory, free_bytes, too_new))


def usual_kudos(baseline: str, side: int, steps: int) -> float:
    """What the horde pays for a plain picture of this size, as a rule."""
    image = PricedImage(
        pixels=side * side,
        steps=steps,
        sampler_name="k_euler_a",
        hires_fix=False,
        is_controlled=False,
        denoising_strength=None,
        post_processing=(),
        loras=0,
        has_inversions=False,
        is_qr_code=False,
    )
    return image_reward(image, baseline)


def _problem(
    stock: Stock,
    row: ProposedModel,
    memory: ComputeMemory,
    free_bytes: int,
    too_new: Mapping[str, str],
) -> str:
    entry = stock.entry
    if not entry.baseline:
        return "its family is not served here"
    if row.name in too_new:
        return too_new[row.name]
    misfit = expected_misfit(entry, memory)
    if misfit is not None:
        return misfit.told
    if row.largest_side**2 < LEAST_SHARE * row.side**2:
        return f"there is memory for pictures of {row.largest_side}x{row.largest_side} alone"
    if stock.is_wanting and stock.lacks_checksum:
        return "the list has no checksum for it, so it is not downloaded"
    if row.download_bytes > free_bytes - DISK_FLOOR_BYTES:
        return "the disk has no room for it"
    return ""


def _marked(rows: Iterable[ProposedModel], free_bytes: int) -> Iterable[ProposedModel]:
    room = DISK_SHARE * max(free_bytes - DISK_FLOOR_BYTES, 0)
    left = MOST_PROPOSED
    for row in rows:
        is_proposed = bool(left) and not row.problem and row.download_bytes <= room
        if is_proposed:
            room -= row.download_bytes
            left -= 1
        yield replace(row, is_proposed=is_proposed)
