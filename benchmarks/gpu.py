"""The NVIDIA card while something is measured, as the driver tells (NVML)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import pynvml

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Gpu:
    """What does not change during a run."""

    name: str
    driver: str
    memory_bytes: int
    power_limit_watts: float | None  # None: this card does not tell


@dataclass(frozen=True, slots=True)
class GpuReading:
    """One look at the card; None is what this card does not tell."""

    sm_clock_mhz: float | None
    memory_clock_mhz: float | None
    temperature_celsius: float | None
    power_watts: float | None
    used_bytes: float | None


def first_gpu() -> Gpu | None:
    """The first card; None where there is none, or where its driver does not answer."""
    return _ask(_describe)


def read_gpu() -> GpuReading | None:
    """The first card's clocks, temperature, power and memory in use now; None without a card."""
    return _ask(_read)


def _ask(question: Callable[[Any], T]) -> T | None:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        return question(pynvml.nvmlDeviceGetHandleByIndex(0))
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()


def _describe(card: Any) -> Gpu:
    limit = _told(lambda: pynvml.nvmlDeviceGetEnforcedPowerLimit(card) / 1000)
    return Gpu(
        pynvml.nvmlDeviceGetName(card),
        pynvml.nvmlSystemGetDriverVersion(),
        int(pynvml.nvmlDeviceGetMemoryInfo(card).total),
        limit,
    )


def _read(card: Any) -> GpuReading:
    nvml = pynvml
    return GpuReading(
        _told(lambda: nvml.nvmlDeviceGetClockInfo(card, nvml.NVML_CLOCK_SM)),
        _told(lambda: nvml.nvmlDeviceGetClockInfo(card, nvml.NVML_CLOCK_MEM)),
        _told(lambda: nvml.nvmlDeviceGetTemperature(card, nvml.NVML_TEMPERATURE_GPU)),
        _told(lambda: nvml.nvmlDeviceGetPowerUsage(card) / 1000),
        _told(lambda: nvml.nvmlDeviceGetMemoryInfo(card).used),
    )


def _told(ask: Callable[[], Any]) -> float | None:
    """Laptop cards and old ones don't tell everything."""
    try:
        return float(ask())
    except pynvml.NVMLError:
        return None
