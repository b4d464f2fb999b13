"""The NVIDIA cards of this machine, as the driver tells (NVML), counted as CUDA counts them.

No other module asks NVML. Nothing but the open driver is remembered: each call asks again, so what
other programs use counts.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

import pynvml

from hordelib.memory.readings import Memory

T = TypeVar("T")
VISIBLE = "CUDA_VISIBLE_DEVICES"

DriverError = pynvml.NVMLError  # what NVML says instead of an answer
DRIVER_ABSENT = (pynvml.NVMLError_LibraryNotFound, pynvml.NVMLError_DriverNotLoaded)


@dataclass(frozen=True, slots=True)
class PowerLimit:
    """In milliwatts, as the driver counts."""

    now: int
    least: int
    most: int


@dataclass(frozen=True, slots=True)
class NvmlCard:
    """A card, or a part of one (MIG), while NVML is open.

    What not every card tells (laptops' and old ones don't) is None where this one does not; `name`,
    `driver` and `memory` raise DriverError.
    """

    handle: Any

    @property
    def name(self) -> str:
        return str(pynvml.nvmlDeviceGetName(self.handle))

    @property
    def driver(self) -> str:
        return str(pynvml.nvmlSystemGetDriverVersion())

    @property
    def memory(self) -> Memory:
        told = pynvml.nvmlDeviceGetMemoryInfo(self.handle)
        return Memory(int(told.total), int(told.free))

    @property
    def capability(self) -> tuple[int, int] | None:
        """CUDA's: (8, 6), for example."""
        told = _told(pynvml.nvmlDeviceGetCudaComputeCapability, self.handle)
        return told and (int(told[0]), int(told[1]))

    @property
    def celsius(self) -> int | None:
        return _told(pynvml.nvmlDeviceGetTemperature, self.handle, pynvml.NVML_TEMPERATURE_GPU)

    @property
    def load_percent(self) -> int | None:
        told = _told(pynvml.nvmlDeviceGetUtilizationRates, self.handle)
        return told and int(told.gpu)

    @property
    def watts(self) -> float | None:
        return _thousandth(_told(pynvml.nvmlDeviceGetPowerUsage, self.handle))

    @property
    def most_watts(self) -> float | None:
        return _thousandth(_told(pynvml.nvmlDeviceGetEnforcedPowerLimit, self.handle))

    @property
    def power_limit(self) -> PowerLimit | None:
        """None where it can't be set, too."""
        bounds = _told(pynvml.nvmlDeviceGetPowerManagementLimitConstraints, self.handle)
        now = _told(pynvml.nvmlDeviceGetPowerManagementLimit, self.handle)
        return None if bounds is None or now is None else PowerLimit(now, *bounds)

    def clock_mhz(self, kind: int) -> int | None:
        """`kind` is SM_CLOCK or MEMORY_CLOCK."""
        return _told(pynvml.nvmlDeviceGetClockInfo, self.handle, kind)

    def processes(self) -> dict[int, int]:
        """The bytes of each process on it, by its id, ours among them; Windows tells 0 of each."""
        taken: dict[int, int] = {}
        for ask in (
            pynvml.nvmlDeviceGetComputeRunningProcesses,
            pynvml.nvmlDeviceGetGraphicsRunningProcesses,
        ):
            for each in _told(ask, self.handle) or ():
                taken[each.pid] = max(taken.get(each.pid, 0), each.usedGpuMemory or 0)
        return taken

    def computing_processes(self) -> tuple[int, ...]:
        """The ids of those that compute on it, ours among them."""
        found = _told(pynvml.nvmlDeviceGetComputeRunningProcesses, self.handle)
        return tuple(process.pid for process in found or ())

    def set_power_limit(self, milliwatts: int) -> str:
        """Why the driver refuses it; "" where it does as told."""
        try:
            pynvml.nvmlDeviceSetPowerManagementLimit(self.handle, milliwatts)
        except DriverError as error:
            return str(error)
        return ""


SM_CLOCK, MEMORY_CLOCK = pynvml.NVML_CLOCK_SM, pynvml.NVML_CLOCK_MEM


def open_first_card() -> NvmlCard | None:
    """What CUDA calls cuda:0; None where there is none. NVML stays open, which takes milliseconds
    to open. Raises DriverError, and one of DRIVER_ABSENT where there is no driver to ask."""
    pynvml.nvmlInit()
    found = first_visible(os.environ.get(VISIBLE))
    return None if found is None else NvmlCard(found)


def open_card(uuid: str) -> NvmlCard:
    """The card, or part of one, of this UUID. NVML stays open. Raises DriverError."""
    pynvml.nvmlInit()
    return NvmlCard(pynvml.nvmlDeviceGetHandleByUUID(uuid))


@dataclass(frozen=True, slots=True)
class FoundCard:
    """A card of this machine, or a part of one that is divided (MIG)."""

    number: str
    """NVML's, which is that of nvidia-smi, whatever CUDA_VISIBLE_DEVICES says; 0:1 is a part."""
    uuid: str
    """As CUDA_VISIBLE_DEVICES takes it."""
    card: NvmlCard
    is_visible: bool
    """Whether CUDA_VISIBLE_DEVICES lets this process use it."""


def find_cards() -> list[FoundCard]:
    """All of this machine, in NVML's order, which is that of the PCI bus. NVML stays open.

    Raises DriverError, and one of DRIVER_ABSENT where there is no driver to ask.
    """
    pynvml.nvmlInit()
    wholes = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
    uuids = [str(pynvml.nvmlDeviceGetUUID(each)) for each in wholes]
    visible = _visible(os.environ.get(VISIBLE), uuids)
    found: list[FoundCard] = []
    for number, (whole, uuid) in enumerate(zip(wholes, uuids, strict=True)):
        if not (parts := _parts(whole)):
            is_visible = visible is None or uuid in visible
            found.append(FoundCard(str(number), uuid, NvmlCard(whole), is_visible))
        for place, part in enumerate(parts):
            name = str(pynvml.nvmlDeviceGetUUID(part))
            is_first = not place and uuid in (visible or ())  # CUDA takes no other part of it
            is_visible = visible is None or name in visible or is_first
            found.append(FoundCard(f"{number}:{place}", name, NvmlCard(part), is_visible))
    return found


def _visible(names: str | None, uuids: Sequence[str]) -> set[str] | None:
    """UUIDs of the cards and the parts that CUDA_VISIBLE_DEVICES names; None: all.

    A name that nothing has hides it and all after it.
    """
    if names is None:
        return None
    visible: set[str] = set()
    for name in map(str.strip, names.split(",")):
        if name.startswith("MIG-"):
            visible.add(name)
        elif name.isdecimal() and int(name) < len(uuids):
            visible.add(uuids[int(name)])
        elif name and (fitting := [uuid for uuid in uuids if uuid.startswith(name)]):
            visible.add(fitting[0])
        else:
            break
    return visible


def _parts(card: Any) -> list[Any]:
    """Of a card that is divided; none of any other."""
    divided = _told(pynvml.nvmlDeviceGetMigMode, card)
    if not divided or not divided[0]:
        return []
    places = range(_told(pynvml.nvmlDeviceGetMaxMigDeviceCount, card) or 0)
    parts = (_told(pynvml.nvmlDeviceGetMigDeviceHandleByIndex, card, place) for place in places)
    return [part for part in parts if part is not None]


@contextmanager
def opened_first_card() -> Generator[NvmlCard | None]:
    """The same, for as long as the block lasts."""
    card = open_first_card()
    try:
        yield card
    finally:
        with suppress(DriverError):
            pynvml.nvmlShutdown()


def ask_first_card(question: Callable[[NvmlCard], T]) -> T | None:
    """What the card that CUDA calls cuda:0 answers; None where there is none, or no answer."""
    with suppress(DriverError), opened_first_card() as card:
        return None if card is None else question(card)
    return None


@contextmanager
def opened_cards() -> Generator[list[FoundCard]]:
    """Those that this process may use, for as long as the block lasts; none where no driver
    answers."""
    try:
        found = [each for each in find_cards() if each.is_visible]
    except DriverError:
        found = []
    try:
        yield found
    finally:
        with suppress(DriverError):
            pynvml.nvmlShutdown()


def ask_card(uuid: str, question: Callable[[NvmlCard], T]) -> T | None:
    """What the card of this UUID answers, or the one that CUDA calls cuda:0 where that is ""; None
    where there is none, or no answer."""
    if not uuid:
        return ask_first_card(question)
    with suppress(DriverError):
        pynvml.nvmlInit()
        try:
            return question(NvmlCard(pynvml.nvmlDeviceGetHandleByUUID(uuid)))
        finally:
            with suppress(DriverError):
                pynvml.nvmlShutdown()
    return None


def first_visible(visible: str | None) -> Any:
    """NVML's handle of what CUDA calls cuda:0; None where there is none.

    `visible` is CUDA_VISIBLE_DEVICES: numbers (in the order of the PCI bus), or the beginnings of
    UUIDs; a name that nothing has hides it and all after it. Of a card that is divided (MIG), CUDA
    takes the first part. Needs nvmlInit. Raises DriverError.
    https://docs.nvidia.com/cuda/cuda-c-programming-guide/#env-vars
    """
    name = "0" if visible is None else visible.split(",")[0].strip()
    if name.startswith("MIG-"):
        return pynvml.nvmlDeviceGetHandleByUUID(name)
    cards = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
    if name.isdecimal():
        found = cards[int(name) :][:1]
    else:
        found = [each for each in cards if name and pynvml.nvmlDeviceGetUUID(each).startswith(name)]
    return _first_part(found[0]) if found else None


def _first_part(card: Any) -> Any:
    divided = _told(pynvml.nvmlDeviceGetMigMode, card)  # most cards can't be divided
    return pynvml.nvmlDeviceGetMigDeviceHandleByIndex(card, 0) if divided and divided[0] else card


def card_memory(uuid: str) -> Memory:
    """The whole card with this UUID, or part of one (MIG), whichever program uses it.

    CUDA's UUID, which is NVML's without the beginning. Raises DriverError where the driver does not
    answer, and where it has no such card.
    """
    try:
        return _card_of(uuid).memory
    except DriverError:
        _card_of.cache_clear()
        raise


@cache
def _card_of(uuid: str) -> NvmlCard:
    """NVML stays open with it: it is asked in each step."""
    pynvml.nvmlInit()
    try:
        return NvmlCard(pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}"))
    except DriverError:
        return NvmlCard(pynvml.nvmlDeviceGetHandleByUUID(f"MIG-{uuid}"))


def _told(ask: Callable[..., Any], *arguments: Any) -> Any:
    with suppress(DriverError):
        return ask(*arguments)
    return None


def _thousandth(number: int | None) -> float | None:
    return None if number is None else number / 1000
