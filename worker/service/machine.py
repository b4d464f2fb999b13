"""What the machine says of itself at a moment: memory, the card's load and heat, the disk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pynvml
from pydantic import BaseModel, ConfigDict

from hordelib.memory.cards import VISIBLE, first_visible
from hordelib.memory.readings import main_memory
from worker.config.keys import BridgeConfig


class _Reading(BaseModel):
    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class Room(_Reading):
    """Memory or a disk, in bytes."""

    total_bytes: int
    free_bytes: int
    """Whatever program uses the rest."""
    reserve_bytes: int
    """What the worker leaves to other programs."""


class CardReading(_Reading):
    """What the driver does not tell is null."""

    name: str
    memory: Room
    load_percent: int | None = None
    celsius: int | None = None
    watts: float | None = None


class MachineReading(_Reading):
    """`card` is null where there is none, or its driver does not answer."""

    memory: Room
    card: CardReading | None = None
    disk: Room | None = None
    """That of the models folder."""


class Machine:
    """Asks again at each `read`; of a card NVML stays open, which takes milliseconds to open."""

    def __init__(self, config: BridgeConfig, home: Path, disk_reserve_bytes: int):
        self._config = config
        self._folder = config.models_folder(home)
        self._disk_reserve_bytes = disk_reserve_bytes
        self._card: Any = _first_card()

    def read(self) -> MachineReading:
        memory = main_memory()
        reserve = self._config.ram_to_leave_free.bytes_of(memory.total_bytes)
        return MachineReading(
            memory=Room(
                total_bytes=memory.total_bytes,
                free_bytes=memory.free_bytes,
                reserve_bytes=reserve,
            ),
            card=self._read_card(),
            disk=self._read_disk(),
        )

    def _read_card(self) -> CardReading | None:
        if self._card is None:
            return None
        card = self._card
        with suppress(pynvml.NVMLError):
            memory = pynvml.nvmlDeviceGetMemoryInfo(card)
            total_bytes = int(memory.total)
            load = _told(lambda: pynvml.nvmlDeviceGetUtilizationRates(card).gpu)
            celsius = _told(
                lambda: pynvml.nvmlDeviceGetTemperature(card, pynvml.NVML_TEMPERATURE_GPU)
            )
            milliwatts = _told(lambda: pynvml.nvmlDeviceGetPowerUsage(card))
            return CardReading(
                name=str(pynvml.nvmlDeviceGetName(card)),
                memory=Room(
                    total_bytes=total_bytes,
                    free_bytes=int(memory.free),
                    reserve_bytes=self._config.vram_to_leave_free.bytes_of(total_bytes),
                ),
                load_percent=load,
                celsius=celsius,
                watts=None if milliwatts is None else milliwatts / 1000,
            )
        return None

    def _read_disk(self) -> Room | None:
        with suppress(OSError):
            disk = shutil.disk_usage(self._folder)
            return Room(
                total_bytes=disk.total,
                free_bytes=disk.free,
                reserve_bytes=self._disk_reserve_bytes,
            )
        return None


def _first_card() -> Any:
    """NVML's handle of the one that CUDA uses; None where there is no card, or no driver that
    answers."""
    with suppress(pynvml.NVMLError):
        pynvml.nvmlInit()
        return first_visible(os.environ.get(VISIBLE))
    return None


def _told(ask: Callable[[], Any]) -> int | None:
    with suppress(pynvml.NVMLError):
        return int(ask())
    return None
