"""What differs between the versions of ComfyUI that the engine runs on: 0.3.75 and 0.33.0."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hordelib.job.families import Family
from hordelib.job.params import SEEDS

# Of the executor's cache of results, which keeps those of the last graph alone. 0.33.0 insists on
# the last of them, and 0.3.75 does not look at it.
CACHE_ARGUMENTS: Mapping[str, int] = MappingProxyType({"lru": 0, "ram": 0, "ram_inactive": 0})

# Command-line arguments that 0.3.75 does not have. 0.33.0 would bring weights to the card piece by
# piece, behind the back of our cache.
_NEWER_ARGUMENTS: Mapping[str, object] = MappingProxyType({"disable_dynamic_vram": True})


def version_in(folder: Path) -> str:
    """The version of the ComfyUI in a folder; "" where there is none."""
    try:
        text = (folder / "comfyui_version.py").read_text("utf-8")
    except OSError:
        return ""
    return text.partition('__version__ = "')[2].partition('"')[0]


def knows(folder: Path, family: Family) -> bool:
    """Whether the ComfyUI in a folder has the family; one that is not there knows all."""
    numbers = _numbers(version_in(folder))
    return not numbers or numbers >= family.least_comfyui


def lack(folder: Path, name: str, family: Family) -> str:
    """Why the ComfyUI in a folder can't run a model of that family; "" where it can."""
    if knows(folder, family):
        return ""
    needed = ".".join(map(str, family.least_comfyui))
    return (
        f"model {name!r}: {family.name} needs ComfyUI {needed}, and {version_in(folder)} is in"
        f" {folder}: run ./update-runtime.sh --comfyui {needed}, or take the name out"
    )


def newer_arguments(arguments: object) -> dict[str, object]:
    """What to set of the arguments that only a newer ComfyUI has; nothing for 0.3.75's."""
    return {name: value for name, value in _NEWER_ARGUMENTS.items() if hasattr(arguments, name)}


def cached_result(outputs: Any, node_id: str) -> Any:
    """The entry of a node in the executor's cache, or None. `get` is a coroutine in 0.33.0."""
    find = getattr(outputs, "get_local", None) or outputs.get
    return find(node_id)


def embedding_reader(take: Callable[[str], tuple[Any, str]]) -> Callable[[str], tuple[Any, ...]]:
    """What a tokenizer asks for the vectors of a textual inversion by its name.

    `take` returns the vectors and the text after the name; 0.33.0 wants the name between the two.
    """
    return partial(_with_name, take) if _numbers(_running_version()) >= _NEWER else take


def _with_name(take: Callable[[str], tuple[Any, str]], name: str) -> tuple[Any, str, str]:
    vectors, rest = take(name)
    return vectors, name, rest


def step_seed(seed: int, device_type: str) -> int:
    """The seed that ComfyUI draws the noise of a picture's steps from.

    On the CPU, 0.33.0 adds 1, so that it is not the first noise once more: other pictures there
    than 0.3.75's, and the same ones on a card. The largest seed, which ComfyUI can't add to, is
    followed by 0.
    """
    adds = device_type == "cpu" and _numbers(_running_version()) >= _NEWER
    return (seed + adds) % SEEDS


_NEWER = (0, 33, 0)


@cache
def _running_version() -> str:
    """Of the ComfyUI that this process has loaded."""
    return import_module("comfyui_version").__version__


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)))
