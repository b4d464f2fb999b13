"""The NVIDIA card while something is measured, as the driver tells (NVML)."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, fields
from statistics import median
from typing import Self

from hordelib.memory.cards import MEMORY_CLOCK, SM_CLOCK, NvmlCard, ask_first_card

LOOK_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Gpu:
    """What does not change during a run."""

    name: str
    driver: str
    memory_bytes: int
    power_limit_watts: float | None  # None: this card does not tell


@dataclass(frozen=True, slots=True)
class GpuReading:
    """The card while something ran: medians, and the most memory; None: this card does not tell."""

    sm_clock_mhz: float | None
    memory_clock_mhz: float | None
    temperature_celsius: float | None
    power_watts: float | None
    used_bytes: float | None


class WatchedGpu:
    """Reads the card from a thread of its own while a block runs; `reading` has it afterwards."""

    def __init__(self) -> None:
        self.reading: GpuReading | None = None
        self._looks: list[GpuReading] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(
            target=ask_first_card, args=(self._watch,), name="card", daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self.reading = summary(self._looks)

    def _watch(self, card: NvmlCard) -> None:
        while True:
            self._looks.append(_read(card))
            if self._ended.wait(LOOK_SECONDS):
                return


def summary(looks: Sequence[GpuReading]) -> GpuReading | None:
    """All looks as one; None where there is none."""
    if not looks:
        return None
    told = {
        each.name: [value for look in looks if (value := getattr(look, each.name)) is not None]
        for each in fields(GpuReading)
    }
    most = max(told.pop("used_bytes"), default=None)
    middles = {name: median(values) if values else None for name, values in told.items()}
    return GpuReading(**middles, used_bytes=most)


def first_gpu() -> Gpu | None:
    """The card that the engine takes; None where there is none, or its driver does not answer."""
    return ask_first_card(_describe)


def _describe(card: NvmlCard) -> Gpu:
    return Gpu(card.name, card.driver, card.memory.total_bytes, card.most_watts)


def _read(card: NvmlCard) -> GpuReading:
    memory = card.memory
    return GpuReading(
        card.clock_mhz(SM_CLOCK),
        card.clock_mhz(MEMORY_CLOCK),
        card.celsius,
        card.watts,
        memory.total_bytes - memory.free_bytes,
    )
