"""NVML of a machine whose cards are not there, behind pynvml's own functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

MIB = 1 << 20


@dataclass(eq=False)
class SimulatedCard:
    """A card, or a part of one (MIG) where its UUID says so."""

    name: str
    uuid: str
    memory_bytes: int = 8192 * MIB
    free_bytes: int = 6000 * MIB
    capability: tuple[int, int] = (8, 6)
    parts: Sequence[SimulatedCard] = ()
    celsius: int = 50
    load_percent: int = 97
    milliwatts: int = 300_000
    users: dict[int, int] = field(default_factory=dict[int, int])


@dataclass
class SimulatedNvml:
    """What is asked of it fails with `error`, while there is one."""

    cards: list[SimulatedCard]
    driver: str = "570.86"
    error: Exception | None = None
    opened: int = 0

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in dir(self):
            if name.startswith("nvml"):
                monkeypatch.setattr(pynvml, name, getattr(self, name))

    def nvmlInit(self) -> None:
        self.opened += 1
        self._fail()

    def nvmlShutdown(self) -> None:
        """Nothing is open."""

    def nvmlDeviceGetCount(self) -> int:
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> SimulatedCard:
        return self.cards[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> SimulatedCard:
        known = [*self.cards, *(part for card in self.cards for part in card.parts)]
        for card in known:
            if card.uuid == uuid:
                return card
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)

    def nvmlDeviceGetUUID(self, card: SimulatedCard) -> str:
        return card.uuid

    def nvmlDeviceGetName(self, card: SimulatedCard) -> str:
        return card.name

    def nvmlDeviceGetMigMode(self, card: SimulatedCard) -> tuple[int, int]:
        if card.parts:
            return 1, 1
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    def nvmlDeviceGetMaxMigDeviceCount(self, card: SimulatedCard) -> int:
        return len(card.parts)

    def nvmlDeviceGetMigDeviceHandleByIndex(self, card: SimulatedCard, index: int) -> SimulatedCard:
        return card.parts[index]

    def nvmlDeviceGetMemoryInfo(self, card: SimulatedCard) -> Any:
        self._fail()
        return SimpleNamespace(total=card.memory_bytes, free=card.free_bytes)

    def nvmlDeviceGetCudaComputeCapability(self, card: SimulatedCard) -> tuple[int, int]:
        return card.capability

    def nvmlDeviceGetComputeRunningProcesses(self, card: SimulatedCard) -> list[Any]:
        return [SimpleNamespace(pid=pid, usedGpuMemory=size) for pid, size in card.users.items()]

    def nvmlDeviceGetTemperature(self, card: SimulatedCard, _kind: int) -> int:
        return card.celsius

    def nvmlDeviceGetUtilizationRates(self, card: SimulatedCard) -> Any:
        return SimpleNamespace(gpu=card.load_percent)

    def nvmlDeviceGetPowerUsage(self, card: SimulatedCard) -> int:
        return card.milliwatts // 2

    def nvmlDeviceGetPowerManagementLimit(self, card: SimulatedCard) -> int:
        return card.milliwatts

    def nvmlDeviceGetPowerManagementLimitConstraints(self, _card: SimulatedCard) -> tuple[int, int]:
        return 100_000, 350_000

    def nvmlDeviceSetPowerManagementLimit(self, card: SimulatedCard, milliwatts: int) -> None:
        self._fail()
        card.milliwatts = milliwatts

    def nvmlDeviceGetGraphicsRunningProcesses(self, _card: SimulatedCard) -> list[Any]:
        return []

    def nvmlSystemGetDriverVersion(self) -> str:
        return self.driver

    def _fail(self) -> None:
        if self.error is not None:
            raise self.error
