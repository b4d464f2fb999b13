"""The NVIDIA cards of this machine, as the driver tells (NVML), counted as CUDA counts them.

Nothing but the open driver is remembered: each call asks again, so what other programs use counts.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pynvml

from hordelib.memory.readings import Memory

VISIBLE = "CUDA_VISIBLE_DEVICES"


def first_visible(visible: str | None) -> Any:
    """NVML's handle of what CUDA calls cuda:0; None where there is none.

    `visible` is CUDA_VISIBLE_DEVICES: numbers (in the order of the PCI bus), or the beginnings of
    UUIDs; a name that nothing has hides it and all after it. Of a card that is divided (MIG), CUDA
    takes the first part. Needs nvmlInit. Raises pynvml.NVMLError.
    https://docs.nvidia.com/cuda/cuda-c-programming-guide/#env-vars
    """
    name = "0" if visible is None else visible.split(",")[0].strip()
    if name.startswith("MIG-"):
        return pynvml.nvmlDeviceGetHandleByUUID(name)
    cards = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
    if name.isdecimal():
        found = cards[int(name) :][:1]
    else:
        found = [each for each in cards if name and pynvml.nvmlDeviceGetUUID(each).startswith(name)]
    return _first_part(found[0]) if found else None


def _first_part(card: Any) -> Any:
    try:
        is_divided, _ = pynvml.nvmlDeviceGetMigMode(card)
    except pynvml.NVMLError:  # most cards can't be divided
        return card
    return pynvml.nvmlDeviceGetMigDeviceHandleByIndex(card, 0) if is_divided else card


def card_memory(uuid: str) -> Memory:
    """The whole card with this UUID, or part of one (MIG), whichever program uses it.

    CUDA's UUID, which is NVML's without the beginning. Raises pynvml.NVMLError where the driver
    does not answer, and where it has no such card.
    """
    try:
        memory = pynvml.nvmlDeviceGetMemoryInfo(_handle(uuid))
    except pynvml.NVMLError:
        _handle.cache_clear()
        raise
    return Memory(int(memory.total), int(memory.free))


@cache
def _handle(uuid: str) -> Any:
    """NVML stays open with it: to open it takes milliseconds, and it is asked in each step."""
    pynvml.nvmlInit()
    try:
        return pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
    except pynvml.NVMLError:
        return pynvml.nvmlDeviceGetHandleByUUID(f"MIG-{uuid}")
