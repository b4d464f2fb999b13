"""What the first card says of itself at this moment: nothing is raised where it does not answer."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import pynvml

from hordelib.memory.cards import VISIBLE, first_visible

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PowerLimit:
    """In milliwatts, as the driver counts."""

    now: int
    least: int
    most: int


def temperature() -> int | None:
    """In °C; None where there is no card, or it does not tell."""
    return _asked(lambda card: pynvml.nvmlDeviceGetTemperature(card, pynvml.NVML_TEMPERATURE_GPU))


def computing_processes() -> tuple[int, ...]:
    """The ids of all processes that compute on it, ours among them."""
    found = _asked(pynvml.nvmlDeviceGetComputeRunningProcesses)
    return tuple(process.pid for process in found or ())


def power_limit() -> PowerLimit | None:
    """What it may take; None where there is no card, or none that has such a limit."""

    def read(card: Any) -> PowerLimit:
        least, most = pynvml.nvmlDeviceGetPowerManagementLimitConstraints(card)
        now = pynvml.nvmlDeviceGetPowerManagementLimit(card)
        return PowerLimit(int(now), int(least), int(most))

    return _asked(read)


def set_power_limit(milliwatts: int) -> str:
    """Why the driver refuses it; "" where it does as told."""

    def write(card: Any) -> str:
        try:
            pynvml.nvmlDeviceSetPowerManagementLimit(card, milliwatts)
        except pynvml.NVMLError as error:
            return str(error)
        return ""

    told = _asked(write)
    return "no card answers" if told is None else told


def _asked(question: Callable[[Any], T]) -> T | None:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        card = first_visible(os.environ.get(VISIBLE))
        return None if card is None else question(card)
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()
