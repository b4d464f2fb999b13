"""What the machine says of itself at a moment: memory, each card's load and heat, the disk."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from hordelib.memory.cards import DriverError, NvmlCard, ask_card, open_card
from hordelib.memory.readings import main_memory
from worker.config.keys import BridgeConfig
from worker.errors import WorkerError
from worker.models.memory_fit import CardShare, card_shares


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

    uuid: str
    name: str
    memory: Room
    load_percent: int | None = None
    celsius: int | None = None
    watts: float | None = None


class MachineReading(_Reading):
    memory: Room
    cards: tuple[CardReading, ...] = ()
    """Those that the worker uses and whose driver answers."""
    disk: Room | None = None
    """That of the models folder."""


class Machine:
    """Asks again at each `read`; NVML stays open, which takes milliseconds to open."""

    def __init__(self, config: BridgeConfig, home: Path, disk_reserve_bytes: int):
        self._config = config
        self._folder = config.models_folder(home)
        self._disk_reserve_bytes = disk_reserve_bytes
        self._cards = tuple(_opened(config))

    def read(self) -> MachineReading:
        memory = main_memory()
        reserve = self._config.ram_to_leave_free.bytes_of(memory.total_bytes)
        return MachineReading(
            memory=Room(
                total_bytes=memory.total_bytes,
                free_bytes=memory.free_bytes,
                reserve_bytes=reserve,
            ),
            cards=tuple(self._read_cards()),
            disk=self._read_disk(),
        )

    def _read_cards(self) -> Iterator[CardReading]:
        for share, card in self._cards:
            uuid = share.card.uuid if share.card else ""
            with suppress(DriverError):
                yield _read(card, uuid, share.memory.reserve_bytes)

    def _read_disk(self) -> Room | None:
        with suppress(OSError):
            disk = shutil.disk_usage(self._folder)
            return Room(
                total_bytes=disk.total,
                free_bytes=disk.free,
                reserve_bytes=self._disk_reserve_bytes,
            )
        return None


def read_card(uuid: str) -> CardReading | None:
    """One of this machine, whichever worker uses it; None where it does not answer."""
    return ask_card(uuid, lambda card: _read(card, uuid)) if uuid else None


def _read(card: NvmlCard, uuid: str, reserve_bytes: int = 0) -> CardReading:
    """Raises DriverError."""
    total_bytes, free_bytes = card.memory
    return CardReading(
        uuid=uuid,
        name=card.name,
        memory=Room(total_bytes=total_bytes, free_bytes=free_bytes, reserve_bytes=reserve_bytes),
        load_percent=card.load_percent,
        celsius=card.celsius,
        watts=card.watts,
    )


def _opened(config: BridgeConfig) -> Iterator[tuple[CardShare, NvmlCard]]:
    """The cards that the worker uses; none where no driver answers."""
    with suppress(WorkerError):
        for share in card_shares(config):
            if share.card and share.card.uuid:
                with suppress(DriverError):
                    yield share, open_card(share.card.uuid)
