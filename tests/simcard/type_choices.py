"""Cards of several kinds: in which types ComfyUI computes there, and which are refused."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import redirect_stdout
from importlib import import_module
from io import StringIO
from typing import Any

import torch

from hordelib.comfyui import torch_probe
from hordelib.comfyui.device import Device
from hordelib.errors import DeviceUnusable
from hordelib.job.families import FLUX, QWEN_IMAGE, SD1, SD2, SDXL, Z_IMAGE, Family
from hordelib.memory.computed_types import HALF_VAES, ComputedTypes
from tests.simcard.bench import Bench
from tests.simcard.card import MIB
from worker.cli.check_device import on_card
from worker.devices import first_card, probe_of

CARDS = {
    "NVIDIA GeForce RTX 4090": ((8, 9), 24564),
    "NVIDIA GeForce RTX 3060": ((8, 6), 12288),
    "NVIDIA GeForce RTX 2070": ((7, 5), 8192),
    "NVIDIA GeForce GTX 1660": ((7, 5), 6144),
    "NVIDIA GeForce GTX 1650": ((7, 5), 4096),
}
NUMBERS = {
    SD1: 860,
    SD2: 866,
    SDXL: 2567,
    FLUX: 11900,
    QWEN_IMAGE: 20430,
    Z_IMAGE: 6155,
}  # millions
CLASSES = {
    SD1: "SD15", SD2: "SD20", SDXL: "SDXL",
    FLUX: "FluxSchnell", QWEN_IMAGE: "QwenImage", Z_IMAGE: "ZImage",
}  # fmt: skip
FILES = {torch.float16: 2, torch.float8_e4m3fn: 1}


def type_choices(bench: Bench) -> Mapping[str, Any]:
    """Where ours is another one than ComfyUI's: (sampling, weights, decoding), first ours."""
    card = bench.card
    was = card.name, card.capability, card.total_bytes
    apart: dict[str, Any] = {}
    try:
        for card.name, (card.capability, mib) in CARDS.items():
            card.total_bytes = mib * MIB
            for family, millions in NUMBERS.items():
                for dtype, file_bytes in FILES.items():
                    types = ComputedTypes(card.name, card.capability, card.total_bytes)
                    ours = _ours(types, family, millions * 10**6, file_bytes)
                    theirs = _theirs(family, millions * 10**6, dtype)
                    if ours != theirs:
                        apart[f"{card.name} {family.name} {dtype}"] = (ours, theirs)
    finally:
        card.name, card.capability, card.total_bytes = was
    return {"apart": apart}


def refused(bench: Bench) -> Mapping[str, Any]:
    """What `check` and a start of the engine say of a card that torch has no kernels for."""
    card = bench.card
    was = card.name, card.capability
    card.name, card.capability = "NVIDIA GeForce GTX 1080", (6, 1)
    try:
        with redirect_stdout(StringIO()) as printed:
            torch_probe.main()
        seen = first_card()
        assert seen is not None
        found = on_card(seen, probe_of(printed.getvalue()))
        start = _start(bench)
    finally:
        card.name, card.capability = was
    return {"verdict": found.verdict, "detail": found.detail, "start": start}


def _start(bench: Bench) -> str:
    """Why the engine refuses the card."""
    try:
        bench.engine._thread.submit(Device("cuda:0").insist_on_kernels).result()
    except DeviceUnusable as error:
        return str(error)
    return ""


def _ours(types: ComputedTypes, family: Family, numbers: int, file_bytes: int) -> tuple[float, ...]:
    weights = types.weight_bytes("unet", family, file_bytes, numbers)
    return types.sampling_bytes(family), weights, types.decoding_bytes(family)


def _theirs(family: Family, numbers: int, dtype: torch.dtype) -> tuple[float, ...]:
    memory: Any = import_module("comfy.model_management")
    known: Any = getattr(import_module("comfy.supported_models"), CLASSES[family])
    halves = known.supported_inference_dtypes
    weights = memory.unet_dtype(model_params=numbers, supported_dtypes=halves, weight_dtype=dtype)
    device = torch.device("cuda:0")
    computed = memory.unet_manual_cast(weights, device, halves) or weights
    wide = [torch.bfloat16, torch.float32]
    allowed = [torch.bfloat16, torch.float16, torch.float32] if family.name in HALF_VAES else wide
    decoded = memory.vae_dtype(device, allowed)
    return max(2, computed.itemsize), weights.itemsize, decoded.itemsize
