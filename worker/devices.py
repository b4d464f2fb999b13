"""The NVIDIA cards of this machine, as the driver tells (NVML). Never imports torch."""

from __future__ import annotations

from dataclasses import dataclass

import pynvml

from worker.errors import EngineUnusable


@dataclass(frozen=True, slots=True)
class Card:
    name: str
    driver: str
    memory_bytes: int
    free_bytes: int  # whatever program uses the rest


def first_card() -> Card | None:
    """The first card in the driver's order, which the engine uses; None where there is none.

    Raises EngineUnusable when there is a driver and it does not answer: after an update of the
    driver, for example, until the next reboot.
    """
    try:
        pynvml.nvmlInit()
    except (pynvml.NVMLError_LibraryNotFound, pynvml.NVMLError_DriverNotLoaded):
        return None
    except pynvml.NVMLError as error:
        raise EngineUnusable(f"the NVIDIA driver does not work ({error}): reboot") from error
    try:
        return _read_card(0) if pynvml.nvmlDeviceGetCount() else None
    except pynvml.NVMLError as error:
        raise EngineUnusable(f"the NVIDIA card can't be read: {error}") from error
    finally:
        pynvml.nvmlShutdown()


def _read_card(index: int) -> Card:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    return Card(
        name=pynvml.nvmlDeviceGetName(handle),
        driver=pynvml.nvmlSystemGetDriverVersion(),
        memory_bytes=int(memory.total),
        free_bytes=int(memory.free),
    )
