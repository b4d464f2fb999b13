"""The card that the engine uses, and what torch says of it. Never imports torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from hordelib.comfyui import torch_probe
from hordelib.memory.cards import (
    DRIVER_ABSENT,
    DriverError,
    FoundCard,
    NvmlCard,
    find_cards,
    opened_first_card,
)
from worker.errors import ConfigError, EngineUnusable

# Made by the kernel's driver: they are there in a container that has a card and lacks NVML, too.
DEVICE_NODES = (Path("/dev/nvidiactl"), Path("/dev/dxg"))
WSL_NODE = Path("/dev/dxg")
PROBE_SECONDS = 300.0  # torch on a slow disk, and a driver that nobody uses yet


@dataclass(frozen=True, slots=True)
class Card:
    name: str
    driver: str  # "" where only CUDA can be asked
    memory_bytes: int
    free_bytes: int  # whatever program uses the rest
    capability: tuple[int, int] | None = None  # CUDA's: (8, 6), for example
    users: tuple[str, ...] = ()  # who has how much of it now, as far as the driver tells
    number: str = ""  # NVML's, and that of a part of it (MIG): 0, 0:1
    uuid: str = ""  # as CUDA_VISIBLE_DEVICES takes it; "" where only CUDA can be asked


def first_card() -> Card | None:
    """The one that the engine uses, which CUDA calls cuda:0; None where there is none.

    Raises EngineUnusable when there is a driver and it does not answer: after an update of the
    driver, for example, until the next reboot.
    """
    try:
        with opened_first_card() as card:
            return None if card is None else _read_card(card)
    except DRIVER_ABSENT:
        return _card_of_torch() if any(node.exists() for node in DEVICE_NODES) else None
    except DriverError as error:
        raise EngineUnusable(f"the NVIDIA driver does not work ({error}): reboot") from error


def engine_device(card: Card | None) -> str:
    """What the engine is told to compute on: a card that torch can't use is no CPU worker."""
    return "cuda:0" if card else "auto"


def chosen_cards(wanted: Sequence[str] = ()) -> tuple[Card, ...]:
    """The cards of these numbers or UUIDs, in their order, or all that this process may use.

    Raises ConfigError for those that are not there, that CUDA_VISIBLE_DEVICES hides, or that are
    named twice, and EngineUnusable as `first_card` does.
    """
    try:
        found = find_cards()
    except DRIVER_ABSENT:
        return _cards_of_torch(wanted)
    except DriverError as error:
        raise EngineUnusable(f"the NVIDIA driver does not work ({error}): reboot") from error
    chosen: dict[str, FoundCard] = {}
    for name in wanted:
        card = _named(name, found)
        if card.uuid in chosen:
            told = f"{name} is card {card.number}, which is named before; expected each card once"
            raise ConfigError((f"devices: {told}",))
        chosen[card.uuid] = card
    visible = {each.uuid: each for each in found if each.is_visible}
    return tuple(map(_read_found, (chosen if wanted else visible).values()))


def _named(name: str, found: Sequence[FoundCard]) -> FoundCard:
    fitting = [it for it in found if it.number == name or it.uuid.startswith(name)]
    usable = [each for each in found if each.is_visible]
    there = ", ".join(f"{it.number} ({it.card.name}, {it.uuid})" for it in usable) or "none at all"
    if not fitting or (len(fitting) > 1 and not name.isdecimal()):
        raise ConfigError((f"devices: {name}: there is no such card; there is {there}",))
    card = next((each for each in fitting if each.number == name), fitting[0])
    if not card.is_visible:
        told = f"{name}: CUDA_VISIBLE_DEVICES hides it; it leaves {there}"
        raise ConfigError((f"devices: {told}",))
    return card


def _cards_of_torch(wanted: Sequence[str]) -> tuple[Card, ...]:
    card = _card_of_torch() if any(node.exists() for node in DEVICE_NODES) else None
    if wanted:
        told = (
            "cards can't be told apart without the driver's NVML (libnvidia-ml.so.1); install it,"
            " or leave devices out"
            if card
            else "there is no NVIDIA driver here; leave devices out"
        )
        raise ConfigError((f"devices: {wanted[0]}: {told}",))
    return (card,) if card else ()


def _read_found(found: FoundCard) -> Card:
    try:
        return replace(_read_card(found.card), number=found.number, uuid=found.uuid)
    except DriverError as error:
        told = f"card {found.number} does not answer ({error}): reboot, or leave it out of devices"
        raise EngineUnusable(told) from error


def is_wsl() -> bool:
    """Whether the card is Windows', lent to Linux."""
    return WSL_NODE.exists()


@dataclass(frozen=True, slots=True)
class TorchProbe:
    """What torch says of itself and of its first card."""

    version: str
    cuda: str | None  # None: a build for the CPU alone
    kernels: tuple[str, ...]
    card: Card | None
    error: str  # of a small computation on the card


def ask_torch() -> TorchProbe:
    """In a process of its own, which takes seconds. Raises EngineUnusable where torch is broken."""
    command = [sys.executable, "-P", str(torch_probe.__file__)]
    environment = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", **os.environ}  # as the engine's
    try:
        asked = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=PROBE_SECONDS,
            env=environment,
        )
        if asked.returncode:
            lines = asked.stderr.strip().splitlines()
            raise EngineUnusable(f"torch does not work: {lines[-1] if lines else 'it crashed'}")
        return probe_of(asked.stdout)
    except subprocess.TimeoutExpired as error:
        raise EngineUnusable(f"torch says nothing within {PROBE_SECONDS:.0f} s") from error
    except (ValueError, LookupError) as error:
        raise EngineUnusable(f"torch does not work: {error}") from error


def probe_of(output: str) -> TorchProbe:
    """What `torch_probe` has printed. Raises ValueError or LookupError where it is none of it."""
    told = json.loads(output.strip().splitlines()[-1])
    card = told["card"] and _card_told(told["card"])
    kernels = tuple(told["kernels"])
    return TorchProbe(told["version"], told["cuda"], kernels, card, told["error"])


def _card_told(told: dict[str, Any]) -> Card:
    major, minor = told["capability"]
    return Card(told["name"], "", told["memory_bytes"], told["free_bytes"], (major, minor))


@cache
def _card_of_torch() -> Card | None:
    """Asked once: what is free of it, only the engine asks again."""
    return ask_torch().card


def _read_card(card: NvmlCard) -> Card:
    total_bytes, free_bytes = card.memory
    return Card(
        name=card.name,
        driver=card.driver,
        memory_bytes=total_bytes,
        free_bytes=free_bytes,
        capability=card.capability,
        users=tuple(_users(card)),
    )


def _users(card: NvmlCard) -> list[str]:
    """Programs of which the driver tells, the largest first; Windows tells no sizes."""
    largest = sorted(card.processes().items(), key=lambda item: -item[1])
    return [f"{_program(pid)}{f' {size >> 20} MiB' if size else ''}" for pid, size in largest]


def _program(pid: int) -> str:
    try:
        return f"{psutil.Process(pid).name()} ({pid})"
    except psutil.Error:  # in another container
        return f"process {pid}"
