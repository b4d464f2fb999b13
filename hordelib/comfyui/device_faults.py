"""What an error of ComfyUI's says about the device, rather than about the job."""

from __future__ import annotations

from hordelib.errors import EngineError, OutOfMemory

_DEVICE_FAULTS = ("CUDA error", "cuDNN error", "CUBLAS_STATUS")


def device_trouble(where: str, error: Exception | None) -> OutOfMemory | EngineError | None:
    """What an error says about the device rather than the job; None: nothing."""
    import comfy.model_management
    import torch

    if isinstance(error, comfy.model_management.OOM_EXCEPTION | MemoryError):
        return OutOfMemory(f"out of memory in {where}: {first_line(error)}")
    is_fault = isinstance(error, getattr(torch, "AcceleratorError", ()))
    if is_fault or any(sign in str(error) for sign in _DEVICE_FAULTS):
        return EngineError(f"device fault in {where}: {first_line(error)}")
    return None


def first_line(error: BaseException | None) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
