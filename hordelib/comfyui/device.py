"""Where ComfyUI lies and what it computes on, with the memory that a device has."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hordelib.comfyui.device_faults import device_trouble, first_line
from hordelib.comfyui.phases import Clock, HostClock
from hordelib.errors import EngineError
from hordelib.memory.budget import MemoryBudget
from hordelib.memory.cards import DriverError, card_memory
from hordelib.memory.peak import Record
from hordelib.memory.readings import Memory, anonymous_bytes


def default_folder() -> Path:
    """Where update-runtime.sh puts ComfyUI: in $DREAMER_RUNTIME, or beside the packages."""
    runtime = os.environ.get("DREAMER_RUNTIME") or Path(__file__).parents[2]
    return Path(runtime) / ".runtime" / "ComfyUI"


WSL_NODE = Path("/dev/dxg")


@dataclass(frozen=True, slots=True)
class Device:
    """Where ComfyUI computes: `cuda:N`, or the CPU."""

    name: str

    @classmethod
    def choose(cls, wanted: str = "auto") -> Device:
        """`auto` is the first NVIDIA card, or the CPU where there is none."""
        if wanted != "auto":
            return cls(wanted)
        import torch

        return cls("cuda:0" if torch.cuda.is_available() else "cpu")

    @property
    def is_cpu(self) -> bool:
        return self.name == "cpu"

    @property
    def title(self) -> str:
        """What it is called by its maker."""
        import torch

        return self.name if self.is_cpu else torch.cuda.get_device_name(self.name)

    @property
    def capability(self) -> tuple[int, int] | None:
        """CUDA's: (8, 6), for example; None of the CPU."""
        import torch

        return None if self.is_cpu else torch.cuda.get_device_capability(self.name)

    def insist_on_kernels(self) -> None:
        """Compute a little. Raises DeviceUnusable where torch has no kernels for the card, and
        EngineError where it fails otherwise."""
        import torch

        if self.is_cpu:
            return
        try:
            torch.ones(1, device=self.name).add_(1).item()
        except Exception as error:
            failed = EngineError(f"{self.name} does not compute: {first_line(error)}")
            raise device_trouble("a first computation", error) or failed from error

    def select(self) -> None:
        """Make it the one that ComfyUI computes on when called from this thread."""
        import torch

        if not self.is_cpu:
            torch.cuda.set_device(torch.device(self.name))


def card_budget(device: Device, reserve_bytes: int | None) -> MemoryBudget | None:
    """The card's, with ComfyUI's own reserve where none is given; None where there is no card."""
    import comfy.model_management

    if device.is_cpu:
        return None
    if reserve_bytes is None:
        reserve_bytes = int(comfy.model_management.EXTRA_RESERVED_VRAM)
    comfy.model_management.EXTRA_RESERVED_VRAM = 0  # our budget knows of it already
    return MemoryBudget(lambda: card_free_bytes(device.name), reserve_bytes, "vram_to_leave_free")


def card_free_bytes(device: str) -> int:
    """Of the whole card, whoever uses the rest, and of what torch has for us and does not use.

    What torch has in splinters, each a rest of a block of which some is used, fits nothing large.
    """
    import torch

    told = torch.cuda.memory_stats(device)
    spare_bytes = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    splinter_bytes = told.get("inactive_split_bytes.all.current", 0)
    return whole_card(device).free_bytes + max(0, spare_bytes - splinter_bytes)


def settler(device: Device, budget: MemoryBudget | None) -> Callable[[int], None]:
    """What gives the driver back what torch keeps of a card and won't use at once: other programs
    have a reserve, and a cache beside new blocks would take that up.

    It is told how much is about to be taken. What is no more than that stays: the next model's
    weights, or the work with them, come into it without asking the driver, where they fit into its
    blocks. Where they don't, torch gives the blocks back at the end of the budget.
    """

    def settle(needed_bytes: int) -> None:
        import torch

        kept_bytes = torch.cuda.memory_reserved(device.name) - torch.cuda.memory_allocated(
            device.name
        )
        if kept_bytes > max(0, needed_bytes):
            empty_cache()
        if budget is not None:
            hold_to(device, budget)

    return settle


def empty_cache() -> None:
    """Give back what torch keeps of a card; nothing where it has none."""
    import torch

    torch.cuda.empty_cache()


def hold_to(device: Device, budget: MemoryBudget) -> None:
    """Have torch give its cache back, and then fail, where nothing but the reserve is left.

    The driver fails only at the end of the card, so that blocks which fit no weights of the next
    model (Z-Image's follow its text encoder's, for example) would take the reserve up. Drivers for
    Windows since 536.40, and WSL with them, don't fail at all: they go on in main memory.
    https://nvidia.custhelp.com/app/answers/detail/a_id/5490
    """
    import torch

    cuda: Any = torch.cuda  # its types are incomplete
    if not (_spills() or hasattr(cuda, LIMIT)):
        return
    card = whole_card(device.name)
    most_bytes = cuda.memory_reserved(device.name) + card.free_bytes - budget.reserve_bytes
    most_bytes = max(most_bytes, cuda.memory_allocated(device.name))
    cuda.set_per_process_memory_fraction(min(1.0, most_bytes / card.total_bytes), device.name)


LIMIT = "get_per_process_memory_fraction"  # which old releases of torch can't be asked for


def take_reserve() -> bool:
    """Let what is at work have the reserve, until a model is brought to the card again.

    False where it has that already, or must not: rather than lose a picture that is nearly made.
    """
    import torch

    cuda: Any = torch.cuda  # its types are incomplete
    if _spills() or not cuda.is_initialized() or getattr(cuda, LIMIT, lambda: 1.0)() >= 1.0:
        return False
    cuda.set_per_process_memory_fraction(1.0)
    return True


def _spills() -> bool:
    """Whether the driver takes main memory where the card has none left."""
    return sys.platform == "win32" or WSL_NODE.exists()


def whole_card(device: str) -> Memory:
    """As the driver tells (NVML), or CUDA where it does not: a container may have CUDA alone."""
    import torch

    cuda: Any = torch.cuda  # its types are incomplete
    try:
        return card_memory(str(cuda.get_device_properties(device).uuid))
    except (DriverError, AttributeError):  # torch 2.5 tells no UUID
        free_bytes, total_bytes = torch.cuda.mem_get_info(device)
        return Memory(total_bytes, free_bytes)


def memory_record(device: Device) -> Record:
    """Of what this process has of the device's memory for itself; no file's pages."""
    return _HostRecord() if device.is_cpu else _CardRecord(device.name)


class _HostRecord:
    """Main memory keeps none."""

    def most_bytes(self) -> int:
        return anonymous_bytes()

    def restart(self) -> None:
        """There is nothing to forget."""


@dataclass(frozen=True, slots=True)
class _CardRecord:
    """The one that torch keeps of its memory on a card, for the whole process."""

    device: str

    def most_bytes(self) -> int:
        import torch

        return torch.cuda.max_memory_allocated(self.device)

    def restart(self) -> None:
        import torch

        torch.cuda.reset_peak_memory_stats(self.device)


def clock_of(device: Device) -> Clock[Any]:
    """What tells how long the device was at its work."""
    return HostClock() if device.is_cpu else _CardClock()


class _CardClock:
    """CUDA's events: they are passed when the card has done all that it was told before."""

    def mark(self) -> Any:
        import torch

        event: Any = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self, since: Any, until: Any) -> float:
        until.synchronize()
        return since.elapsed_time(until) / 1000
