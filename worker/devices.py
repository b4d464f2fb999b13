"""The NVIDIA cards of this machine, as the driver tells (NVML). Never imports torch."""

from __future__ import annotations

from dataclasses import dataclass

import pynvml


@dataclass(frozen=True, slots=True)
class Card:
    name: str
    driver: str
    memory_bytes: int
    free_bytes: int  # whatever program uses the rest


def first_card() -> Card | None:
    """The card that the engine uses; None where there is no NVIDIA driver or no card."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        if pynvml.nvmlDeviceGetCount() == 0:
            return None
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        return Card(
            name=pynvml.nvmlDeviceGetName(handle),
            driver=pynvml.nvmlSystemGetDriverVersion(),
            memory_bytes=int(memory.total),
            free_bytes=int(memory.free),
        )
    finally:
        pynvml.nvmlShutdown()
