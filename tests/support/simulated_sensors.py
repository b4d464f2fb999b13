"""A card whose driver (NVML) says what a test wants, and does as it is told where it may."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace

import pynvml
import pytest


@dataclass
class SimulatedSensors:
    """One card; `is_allowed` says whether its power limit may be changed."""

    celsius: int = 50
    computing: list[int] = field(default_factory=list[int])
    milliwatts: int = 300_000
    is_allowed: bool = True

    def install(self, patch: pytest.MonkeyPatch) -> None:
        functions: dict[str, Callable[..., object]] = {
            "nvmlInit": lambda: None,
            "nvmlShutdown": lambda: None,
            "nvmlDeviceGetCount": lambda: 1,
            "nvmlDeviceGetMigMode": self._mig_mode,
            "nvmlDeviceGetHandleByIndex": str,
            "nvmlDeviceGetUUID": "GPU-{}".format,
            "nvmlDeviceGetTemperature": self._celsius,
            "nvmlDeviceGetComputeRunningProcesses": self._processes,
            "nvmlDeviceGetPowerManagementLimit": self._limit,
            "nvmlDeviceGetPowerManagementLimitConstraints": self._bounds,
            "nvmlDeviceSetPowerManagementLimit": self._set_limit,
        }
        for name, function in functions.items():
            patch.setattr(pynvml, name, function)

    def _mig_mode(self, _: object) -> tuple[int, int]:
        return 0, 0

    def _limit(self, _: object) -> int:
        return self.milliwatts

    def _bounds(self, _: object) -> tuple[int, int]:
        return 100_000, 350_000

    def _celsius(self, _: object, __: object) -> int:
        return self.celsius

    def _processes(self, _: object) -> list[SimpleNamespace]:
        return [SimpleNamespace(pid=pid) for pid in self.computing]

    def _set_limit(self, _: object, milliwatts: int) -> None:
        if not self.is_allowed:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NO_PERMISSION)
        self.milliwatts = milliwatts
