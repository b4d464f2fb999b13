"""What the machine says of itself at a moment: memory, the card's load and heat, the disk."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from hordelib.memory.cards import DriverError, NvmlCard, open_first_card
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
        self._card = _first_card()

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
        card = self._card
        if card is None:
            return None
        with suppress(DriverError):
            total_bytes, free_bytes = card.memory
            return CardReading(
                name=card.name,
                memory=Room(
                    total_bytes=total_bytes,
                    free_bytes=free_bytes,
                    reserve_bytes=self._config.vram_to_leave_free.bytes_of(total_bytes),
                ),
                load_percent=card.load_percent,
                celsius=card.celsius,
                watts=card.watts,
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


def _first_card() -> NvmlCard | None:
    """None where there is no card, or no driver that answers, too."""
    with suppress(DriverError):
        return open_first_card()
    return None
