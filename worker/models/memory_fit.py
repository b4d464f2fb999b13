"""Whether models fit into the memory that the owner leaves them, and how large pictures may be.

Each card has a share of the offer: its models, and what it has memory for.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from math import isqrt
from typing import Self

from hordelib.errors import ModelBroken
from hordelib.files.model import Model
from hordelib.files.sizes import ModelSize, size_of
from hordelib.job.families import Family
from hordelib.job.params import GenerationParams
from hordelib.memory.computed_types import AMPERE, ComputedTypes
from hordelib.memory.estimates import MemoryEstimate
from hordelib.memory.readings import main_memory
from worker.config.card_keys import CardKeys
from worker.config.keys import BridgeConfig
from worker.devices import Card, chosen_cards

SMALLEST = GenerationParams(prompt="", width=64, height=64)
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class ComputeMemory:
    """The memory that models compute in: a card's, or main memory where there is none."""

    setting: str
    total_bytes: int
    reserve_bytes: int
    types: ComputedTypes | None = None  # None: all is computed in 32 bits

    @classmethod
    def of(cls, config: BridgeConfig, card: Card | None) -> Self:
        if card is None:
            total_bytes = main_memory().total_bytes
            reserve_bytes = config.ram_to_leave_free.bytes_of(total_bytes)
            return cls("ram_to_leave_free", total_bytes, reserve_bytes)
        total_bytes = card.memory_bytes
        reserve_bytes = config.vram_to_leave_free.bytes_of(total_bytes)
        types = ComputedTypes(card.name, card.capability or AMPERE, total_bytes)
        return cls("vram_to_leave_free", total_bytes, reserve_bytes, types)

    def size_of(self, model: Model) -> ModelSize:
        """Raises ModelBroken and OSError."""

        def weight_bytes(part: str, file_bytes: float, numbers: int) -> float:
            return self.weight_bytes(part, model.family, file_bytes, numbers)

        return size_of(model, weight_bytes)

    def weight_bytes(self, part: str, family: Family, file_bytes: float, numbers: int) -> float:
        """Of each of so many numbers that a part has, with `file_bytes` each in its file."""
        if self.types is None:
            return 4
        return self.types.weight_bytes(part, family, file_bytes, numbers)

    def estimate(self, family: Family, vae_bytes: int) -> MemoryEstimate:
        sampling = self.types.sampling_bytes(family) if self.types else 4
        decoding = self.types.decoding_bytes(family) if self.types else 4
        fresh = MemoryEstimate(family, sampling, decode_value_bytes=decoding)
        return fresh.for_vae(vae_bytes)

    @property
    def usable_bytes(self) -> int:
        return self.total_bytes - self.reserve_bytes


@dataclass(frozen=True, slots=True)
class Misfit:
    """A model that could never run, what it needs, and what would help."""

    told: str
    remedy: str
    needed_bytes: int = 0  # where nobody knows


def misfit(name: str, model: Model, memory: ComputeMemory) -> Misfit | None:
    """None for a model whose largest part and smallest picture fit, with all else gone.

    On a card ComfyUI can run a part of which only some is there, many times slower: for a horde
    that waits a minute or two, that is not running. Raises ModelBroken and OSError.
    """
    return misfit_of_size(name, model.family, memory.size_of(model), memory)


def misfit_of_size(
    name: str, family: Family, size: ModelSize, memory: ComputeMemory
) -> Misfit | None:
    """As `misfit`, of a model with parts of this size."""
    estimate = memory.estimate(family, size.vae_bytes)
    needed_bytes = size.largest_part_bytes + estimate.peak_bytes(SMALLEST)
    if needed_bytes <= memory.usable_bytes:
        return None
    most_mib = (memory.total_bytes - needed_bytes) // MIB
    told = (
        f"{name} needs {_gib(needed_bytes)}, and {memory.setting} leaves"
        f" {_gib(memory.usable_bytes)} of {_gib(memory.total_bytes)}"
    )
    if most_mib < 0:
        return Misfit(told, "take the name out: no setting makes room for it", needed_bytes)
    return Misfit(told, f'set {memory.setting}: "{most_mib} MiB" or less', needed_bytes)


def most_pixels(models: Iterable[Model], memory: ComputeMemory, wanted: int) -> int:
    """The largest picture to offer: what the owner wants, as far as each model has room for it.

    The horde knows one size for all models of a worker. A model that does not fit at all, and one
    whose files can't be read, do not count: they are not the offer's business.
    """
    largest = wanted
    for model in models:
        with suppress(ModelBroken, OSError):
            room = room_for_pixels(model.family, memory.size_of(model), memory)
            largest = min(largest, room or largest)
    return largest


def most_at_once(model: Model, memory: ComputeMemory, pixels: int, wanted: int) -> int:
    """How many of the `wanted` pictures of this size fit into one batch; at least 1.

    More are offered all the same: they are made in several batches, each picture as it would be,
    which takes as long as that many smaller jobs. Raises ModelBroken and OSError.
    """
    size = memory.size_of(model)
    estimate = memory.estimate(model.family, size.vae_bytes)
    side = isqrt(pixels)
    job = replace(SMALLEST, width=side - side % 64, height=side - side % 64, images=wanted)
    return estimate.images_at_once(job, memory.usable_bytes - size.largest_part_bytes)


def room_for_pixels(family: Family, size: ModelSize, memory: ComputeMemory) -> int:
    """The largest picture beside a model's largest part, in pixels; 0: none."""
    estimate = memory.estimate(family, size.vae_bytes)
    return estimate.most_pixels(memory.usable_bytes - size.largest_part_bytes)


@dataclass(frozen=True, slots=True)
class CardShare:
    """One card, or the processor where there is none.

    Args:
        config: the worker's.
        own: what differs for this card.
    """

    card: Card | None
    name: str
    config: BridgeConfig
    own: CardKeys | None
    memory: ComputeMemory
    _rooms: dict[str, tuple[Model, int]] = field(default_factory=dict[str, tuple[Model, int]])

    @property
    def now(self) -> BridgeConfig:
        """With what differs for this card, as it is at this moment."""
        return self.config.now.of_card(self.own)

    @property
    def only(self) -> tuple[str, ...]:
        """The models that it has, by their names; none: all."""
        return self.own.models_to_load if self.own else ()

    def has(self, name: str) -> bool:
        """Whether the model of this name is one of its own."""
        return name in self.only or not self.only

    def does(self, model: Model) -> bool:
        """Whether it is, and there is memory for it."""
        return self.has(model.name) and self.most_pixels(model) > 0

    def takes(self, model: Model, params: GenerationParams) -> bool:
        is_small = params.width * params.height <= self.most_pixels(model)
        return self.does(model) and is_small and params.images <= self.now.max_batch

    def most_pixels(self, model: Model) -> int:
        """Of its largest picture of this model, as its owner wants it and as there is room for; 0:
        none. A file that can't be read sets no limit: it is not the offer's business."""
        known = self._rooms.get(model.name)
        if known is None or known[0] != model:
            known = self._rooms[model.name] = (model, self._measured(model))
        return min(self.now.max_pixels, known[1])

    def _measured(self, model: Model) -> int:
        with suppress(ModelBroken, OSError):
            if misfit(model.name, model, self.memory):
                return 0
            return room_for_pixels(model.family, self.memory.size_of(model), self.memory)
        return sys.maxsize


def card_shares(config: BridgeConfig) -> tuple[CardShare, ...]:
    """Of all cards that the configuration means, at least one.

    Raises ConfigError and EngineUnusable as `chosen_cards` does.
    """
    cards = chosen_cards(config.card_names)
    keys = dict(zip(cards, config.devices, strict=True)) if config.devices else {}
    shares: list[CardShare] = []
    for card in cards or (None,):
        own = keys.get(card) if card else None
        name = (own.name if own else None) or (f"card {card.number} ({card.name})" if card else "")
        memory = ComputeMemory.of(config.of_card(own), card)
        shares.append(CardShare(card, name, config, own, memory))
    return tuple(shares)


def most_of_all(shares: Sequence[CardShare], models: Iterable[Model]) -> tuple[int, int]:
    """The largest picture and the most images that can be offered for each of these models: the
    horde knows one size for all models of a worker."""
    able = [[share for share in shares if share.does(model)] for model in models]
    pairs = [
        (
            max(share.most_pixels(model) for share in each),
            max(share.now.max_batch for share in each),
        )
        for model, each in zip(models, able, strict=True)
        if each
    ]
    if not pairs:
        configs = [share.now for share in shares]
        return max(it.max_pixels for it in configs), max(it.max_batch for it in configs)
    return min(pixels for pixels, _ in pairs), min(images for _, images in pairs)


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / (1 << 30):.1f} GiB"
