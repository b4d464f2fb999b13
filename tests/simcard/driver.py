"""Has torch, ComfyUI and NVML believe in a simulated card, for the rest of this process."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, Self

import pynvml
import torch
from torch.utils._pytree import tree_map_only

from tests.simcard import tensors
from tests.simcard.card import UUID, Card
from tests.simcard.tensors import DEVICE, CardMode, CardTensor

ARCHITECTURES = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"]  # of PyPI's torch


def insert(card: Card) -> None:
    """Put the card in, before ComfyUI is imported; it can't be taken out again."""
    tensors.use(card)
    private: Any = torch._C
    private._ensureCUDADeviceGuardSet()  # as torch's own fake tensors do without a driver
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    _replace_cuda(card)
    _replace_factories()
    _replace_nvml(card)
    _enter_in_all_threads()


class CardEvent:
    """The card has always done what it was told: an event is passed when it is recorded."""

    def __init__(self, enable_timing: bool = False, **_: Any):
        del enable_timing

    def record(self, _stream: Any = None) -> None:
        """Nothing is measured."""

    def synchronize(self) -> None:
        """It is passed."""

    def wait(self, _stream: Any = None) -> None:
        """It is passed."""

    def query(self) -> bool:
        return True

    def elapsed_time(self, _other: CardEvent) -> float:
        return 0.0


class CardStream:
    """All streams are one."""

    device = DEVICE

    def __init__(self, card: Card):
        self._card = card

    def wait_stream(self, _other: Any) -> None:
        """There is nothing to wait for."""

    def wait_event(self, _event: Any) -> None:
        """It is passed."""

    def record_event(self, event: Any = None) -> Any:
        return event or CardEvent()

    def synchronize(self) -> None:
        self._card.wait("stream")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing changes."""


def _answering(answer: Callable[[], Any]) -> Callable[..., Any]:
    """Whatever it is asked about: there is one card."""

    def answered(*_arguments: Any, **_options: Any) -> Any:
        return answer()

    return answered


def _replace_cuda(card: Card) -> None:
    allocator, stream = card.allocator, CardStream(card)

    def stats(_device: Any = None) -> OrderedDict[str, int]:
        return OrderedDict(
            {
                "allocated_bytes.all.current": allocator.allocated_bytes,
                "allocated_bytes.all.peak": allocator.peak_bytes,
                "active_bytes.all.current": allocator.allocated_bytes,
                "active_bytes.all.peak": allocator.peak_bytes,
                "reserved_bytes.all.current": allocator.reserved_bytes,
                "reserved_bytes.all.peak": allocator.peak_reserved_bytes,
            }
        )

    def empty_cache() -> None:
        card.empties += 1
        allocator.empty_cache()

    def limit(share: float, _device: Any = None) -> None:
        card.share = share

    def properties(_device: Any = None) -> SimpleNamespace:
        return SimpleNamespace(
            name=card.name,
            major=card.capability[0],
            minor=card.capability[1],
            total_memory=card.total_bytes,
            multi_processor_count=28,
            uuid=UUID,
            is_integrated=0,
            gcnArchName="",
            warp_size=32,
        )

    fakes: dict[str, Any] = {
        "is_available": _answering(lambda: True),
        "is_initialized": _answering(lambda: True),
        "_lazy_init": _answering(lambda: None),
        "init": _answering(lambda: None),
        "device_count": _answering(lambda: 1),
        "current_device": _answering(lambda: 0),
        "set_device": _answering(lambda: None),
        "get_device_name": _answering(lambda: card.name),
        "get_device_properties": properties,
        "get_device_capability": _answering(lambda: card.capability),
        "get_arch_list": _answering(lambda: list(ARCHITECTURES)),
        "is_bf16_supported": _answering(lambda: True),  # emulated before Ampere
        "mem_get_info": _answering(lambda: (card.free_bytes, card.total_bytes)),
        "memory_stats": stats,
        "memory_allocated": _answering(lambda: allocator.allocated_bytes),
        "memory_reserved": _answering(lambda: allocator.reserved_bytes),
        "max_memory_allocated": _answering(lambda: allocator.peak_bytes),
        "max_memory_reserved": _answering(lambda: allocator.peak_reserved_bytes),
        "reset_peak_memory_stats": _answering(lambda: allocator.forget_peak()),
        "set_per_process_memory_fraction": limit,
        "get_per_process_memory_fraction": _answering(lambda: card.share),
        "get_allocator_backend": _answering(lambda: "native"),
        "empty_cache": empty_cache,
        "ipc_collect": _answering(lambda: None),
        "synchronize": _answering(lambda: card.wait("synchronize")),
        "Event": CardEvent,
        "Stream": _answering(lambda: stream),
        "stream": nullcontext,
        "current_stream": _answering(lambda: stream),
        "default_stream": _answering(lambda: stream),
        "is_current_stream_capturing": _answering(lambda: False),
    }
    for name, fake in fakes.items():
        for module in (torch.cuda, torch.cuda.memory):
            if module is torch.cuda or hasattr(module, name):
                setattr(module, name, fake)


def _replace_factories() -> None:
    """What makes tensors of Python's values goes by no dispatcher; generators are of the CPU."""
    for name in ("tensor", "as_tensor", "asarray", "from_numpy"):
        setattr(torch, name, _made_by(getattr(torch, name)))

    generators: Any = torch
    kind: Any = generators.Generator

    class _Generator(kind):
        def __new__(cls, device: Any = "cpu") -> Any:
            del device
            return kind.__new__(cls, device="cpu")

    generators.Generator = _Generator
    cuda: Any = torch.cuda
    cuda.default_generators = (_Generator(),)


def _made_by(original: Any) -> Any:
    def made(data: Any, *args: Any, device: Any = None, **options: Any) -> Any:
        if isinstance(data, CardTensor):
            dtype = options.get("dtype") or data.dtype
            return data.to(device=device or data.device, dtype=dtype)
        data = tree_map_only(CardTensor, CardTensor.item, data)  # of a list: one by one
        if device is not None and torch.device(device).type == "cuda":
            return original(data, *args, **options).to(DEVICE)
        where = {} if device is None else {"device": device}
        return original(data, *args, **where, **options)

    return made


def _replace_nvml(card: Card) -> None:
    def asked(answer: Any) -> Any:
        if not card.has_nvml:
            raise pynvml.NVMLError_LibraryNotFound
        return answer

    def memory(_handle: Any, version: Any = None) -> Any:
        del version
        free_bytes = card.free_bytes
        used_bytes = card.total_bytes - free_bytes
        return asked(SimpleNamespace(total=card.total_bytes, free=free_bytes, used=used_bytes))

    fakes: dict[str, Any] = {
        "nvmlInit": _answering(lambda: asked(None)),
        "nvmlShutdown": _answering(lambda: None),
        "nvmlDeviceGetCount": _answering(lambda: asked(1)),
        "nvmlDeviceGetHandleByIndex": _answering(lambda: asked("card")),
        "nvmlDeviceGetHandleByUUID": _answering(lambda: asked("card")),
        "nvmlDeviceGetUUID": _answering(lambda: asked(f"GPU-{UUID}")),
        "nvmlDeviceGetMemoryInfo": memory,
        "nvmlDeviceGetName": _answering(lambda: asked(card.name)),
        "nvmlDeviceGetCudaComputeCapability": _answering(lambda: asked(card.capability)),
        "nvmlSystemGetDriverVersion": _answering(lambda: asked("580.00")),
    }
    for name, fake in fakes.items():
        setattr(pynvml, name, fake)


def _enter_in_all_threads() -> None:
    """Modes are a thread's own; this one's stays until the process ends."""
    work = threading.Thread.run

    def run(self: threading.Thread) -> None:
        with CardMode():
            work(self)

    threading.Thread.run = run
    CardMode().__enter__()
