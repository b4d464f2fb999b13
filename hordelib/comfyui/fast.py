"""Faster ways that are off unless asked for: ComfyUI's switches, which change pictures a little,
and one of torch's, which does not.

Needs no torch: `check` tells of them, too.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Mapping, MutableMapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

Capability = tuple[int, int]
WSL_NODE = Path("/dev/dxg")


@dataclass(frozen=True, slots=True)
class Switch:
    """What one of them needs. `argument` is ComfyUI's; without it, it is a word of its --fast, or
    what torch's allocator reads of `ALLOCATOR` when it is loaded."""

    least_capability: Capability
    argument: str = ""
    allocator: str = ""
    package: str = ""  # as it is installed
    module: str = ""  # as it is imported
    least_torch: tuple[int, int] = (0, 0)

    @property
    def is_word(self) -> bool:
        """Of ComfyUI's --fast."""
        return not (self.argument or self.allocator)


SWITCHES: Mapping[str, Switch] = MappingProxyType(
    {
        "fp16_accumulation": Switch((7, 0), least_torch=(2, 7)),
        "fp8_matrix_mult": Switch((8, 9)),
        "cublas_ops": Switch((7, 0), package="cublas_ops", module="cublas_ops"),
        "autotune": Switch((5, 0)),
        # Blocks of any size come out of the same memory; WSL's driver can't map it.
        "expandable_segments": Switch((5, 0), allocator="expandable_segments:True"),
        "sage_attention": Switch(
            (8, 0), "use_sage_attention", package="sageattention", module="sageattention"
        ),
        "flash_attention": Switch(
            (8, 0), "use_flash_attention", package="flash-attn", module="flash_attn"
        ),
    }
)


ALLOCATOR = "PYTORCH_CUDA_ALLOC_CONF"


def lack(name: str, capability: Capability | None, torch_version: str) -> str:
    """What one of SWITCHES needs and this machine has not; "" where it has all.

    `capability` is the card's, None where there is no card.
    """
    switch = SWITCHES[name]
    if capability is None:
        return "it needs an NVIDIA card"
    if switch.allocator and (sys.platform == "win32" or WSL_NODE.exists()):
        return "drivers for Windows, and WSL's, have no such memory"
    if capability < switch.least_capability:
        needed, has = (".".join(map(str, each)) for each in (switch.least_capability, capability))
        return f"it needs a card of compute capability {needed}, and this one has {has}"
    numbers = tuple(map(int, re.findall(r"\d+", torch_version)[:2]))
    if numbers < switch.least_torch:
        needed = ".".join(map(str, switch.least_torch))
        return f"it needs torch {needed}, and {torch_version} is installed"
    if switch.module and find_spec(switch.module) is None:
        return f"it needs the package {switch.package}, which is not installed"
    return ""


def set_allocator(names: Collection[str], environment: MutableMapping[str, str]) -> None:
    """Before torch is loaded. What the owner has set there counts."""
    for name in names:
        if SWITCHES[name].allocator and not (sys.platform == "win32" or WSL_NODE.exists()):
            environment.setdefault(ALLOCATOR, SWITCHES[name].allocator)


def arguments_of(names: Collection[str]) -> dict[str, object]:
    """ComfyUI's arguments for these, of which nothing is lacking."""
    features: Any = import_module("comfy.cli_args").PerformanceFeature
    words = {features(name) for name in names if SWITCHES[name].is_word}
    return {"fast": words, **{a: True for n in names if (a := SWITCHES[n].argument)}}
