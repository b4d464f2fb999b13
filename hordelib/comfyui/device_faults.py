"""What an error says about the device rather than about the job: the one table of such errors.

The words are those of CUDA's and its libraries' own error strings, which torch passes on in errors
of several types: https://docs.nvidia.com/cuda/cuda-runtime-api/group__CUDART__TYPES.html
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum, auto
from functools import wraps
from typing import Any

from hordelib.errors import DeviceFault, DeviceUnusable, EngineError, OutOfMemory


class Culprit(StrEnum):
    """Who is to blame, and with that what is done."""

    size = auto()  # the job's: half as much at once is tried, then the job is faulted
    model = auto()  # or a LoRA, perhaps: a new engine, and whether the model kills it is tried
    card = auto()  # a new engine, and nothing is held against any file
    driver = auto()  # or torch's build: the worker stops, and its owner is told the remedy


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of error: some of the `words` are in its text, in any case of letters."""

    culprit: Culprit
    words: tuple[str, ...]
    remedy: str = ""


# Of several rows that match, the first counts.
TABLE = (
    Row(
        Culprit.size,
        (
            "cuda out of memory",
            "error: out of memory",
            "status_alloc_failed",  # of cuDNN, cuBLAS, cuSPARSE
            "solver_status_alloc_failed",
            "cufft_alloc_failed",
            "device_allocation_failed",
            "cudaerrormemoryallocation",
            "cuda_error_out_of_memory",
            "defaultcpuallocator",  # main memory
        ),
    ),
    Row(
        Culprit.driver,
        (
            "no kernel image is available",
            "device kernel image is invalid",
            "invalid device function",
            "status_arch_mismatch",
            "unsupported toolchain",  # of PTX that is newer than the driver
        ),
        "torch's build has no kernels for this card: run ./update-runtime.sh, which installs one"
        " that has, and see ./horde-bridge.sh check",
    ),
    Row(
        Culprit.driver,
        (
            "driver version is insufficient",
            "driver on your system is too old",
            "driver/library version mismatch",
            "system has unsupported display driver",
            "forward compatibility was attempted",
            "no cuda-capable device",
            "no cuda gpus are available",
            "found no nvidia driver",
            "invalid device ordinal",
            "system not yet initialized",
            "api call is not supported in the installed cuda driver",
        ),
        "update the NVIDIA driver, or reboot where it was just updated",
    ),
    Row(
        Culprit.driver,
        ("busy or unavailable", "exclusive process"),
        "end the other program that has the card for itself alone (nvidia-smi shows it and the"
        " card's compute mode)",
    ),
    # A program's own faults: an index out of a table's range, a kernel that does not fit its input.
    Row(
        Culprit.model,
        ("device-side assert", "illegal memory access", "misaligned address"),
    ),
    Row(
        Culprit.card,
        ("cuda error", "cuda driver error", "cudnn error", "cudnn_status", "cublas_status", "nvml"),
    ),
)


def device_trouble(where: str, error: BaseException | None) -> OutOfMemory | EngineError | None:
    """What to raise for an error that is the device's; None for others."""
    row = row_of(error)
    if row is None:
        return None
    told = first_line(error)
    match row.culprit:
        case Culprit.size:
            return OutOfMemory(f"out of memory in {where}: {told}")
        case Culprit.driver:
            return DeviceUnusable(f"the device can't be used ({where}: {told}): {row.remedy}")
        case Culprit.card:
            return DeviceFault(f"the card failed in {where}: {told}")
        case Culprit.model:
            return EngineError(f"device fault in {where}: {told}")


def row_of(error: BaseException | None) -> Row | None:
    """The table's row of an error; None where it says nothing of the device."""
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return TABLE[0]
    known = row_named(str(error))
    is_accelerators = isinstance(error, getattr(torch, "AcceleratorError", ()))
    return TABLE[-1] if known is None and is_accelerators else known


def row_named(text: str) -> Row | None:
    """The row that the text of an error is in; needs no torch."""
    text = text.lower()
    return next((row for row in TABLE if any(words in text for words in row.words)), None)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether less at once may do, by whatever type of error that is told."""
    row = row_of(error)
    return isinstance(error, OutOfMemory) or (row is not None and row.culprit is Culprit.size)


@contextmanager
def memory_errors_named() -> Generator[None]:
    """All that runs out of memory raises torch's own error, after which ComfyUI takes less.

    CUDA's libraries, and what allocates outside of torch's allocator, raise others.
    """
    import torch

    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise torch.OutOfMemoryError(first_line(error)) from error


def name_memory_errors(owner: type, *methods: str) -> None:
    """The same for methods of a class of ComfyUI's, from now on; the second call does nothing."""
    for name in methods:
        method = getattr(owner, name, None)
        if method is not None and not getattr(method, "names_memory_errors", False):
            setattr(owner, name, _naming(method))


def _naming(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def named(*arguments: Any, **options: Any) -> Any:
        with memory_errors_named():
            return method(*arguments, **options)

    vars(named)["names_memory_errors"] = True
    return named


def first_line(error: BaseException | None) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
