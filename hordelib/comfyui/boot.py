"""ComfyUI, headless, inside this process: started once, its log and arguments kept to itself.

This module, `device`, `memory_hooks` and `executor` alone know ComfyUI's global surfaces.
Written against ComfyUI 0.3.75; `versions` has what differs in 0.33.0.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import sys
from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from hordelib.comfyui import memory_hooks, versions
from hordelib.comfyui.device import Device
from hordelib.comfyui.fast import arguments_of, lack, set_allocator
from hordelib.comfyui.lean_imports import import_lean
from hordelib.errors import EngineError, RuntimeMissing

log = logging.getLogger(__name__)

# ComfyUI's top-level modules that we load: a program's own one of that name would be taken for it
TOP_LEVEL = (
    "comfy",
    "comfy_execution",
    "comfy_extras",
    "execution",
    "nodes",
    "folder_paths",
    "latent_preview",
)
OUR_NODES = "hordelib.comfyui.nodes.registry"
# Modules of ComfyUI's own nodes that our graphs use, beside those of nodes.py.
EXTRAS = (
    "comfy_extras.nodes_flux",
    "comfy_extras.nodes_ip2p",
    "comfy_extras.nodes_mask",
    "comfy_extras.nodes_model_advanced",
    "comfy_extras.nodes_post_processing",
    "comfy_extras.nodes_sd3",
    "comfy_extras.nodes_stable_cascade",
)


def boot(
    folder: Path,
    wanted_device: str,
    *,
    reserve_vram_bytes: int | None = None,
    fast: Collection[str] = (),
) -> Device:
    """Load ComfyUI from `folder`, and return the device that it computes on.

    The second call does nothing more; ComfyUI has one state a process. `fast` are names of
    hordelib.comfyui.fast; those that this machine can't do are left out, with a line in the log.

    Everything of ComfyUI's must be called from the thread that called this: CUDA's device is the
    thread's. Raises RuntimeMissing when it is not there, EngineError when the process already has
    another ComfyUI, another device, or modules that ComfyUI's would be mixed up with.
    """
    folder = folder.resolve()
    if not (folder / "execution.py").is_file():
        raise RuntimeMissing(
            f"ComfyUI is not in {folder}: run ./update-runtime.sh, or, without a clone of the"
            f" project, python -m hordelib.setup.comfyui_files --into {folder}"
        )
    set_allocator(fast, os.environ)
    device = Device.choose(wanted_device)  # loads torch, which takes seconds
    running = sys.modules.get("comfy.cli_args")
    if running is not None:
        _insist_on_same(running, folder, device)
        device.select()
        return device
    _refuse_strangers(folder)
    device.select()
    with _quiet_root_logger():
        sys.path.insert(0, str(folder))
        _set_arguments(
            {
                "cpu": device.is_cpu,
                "use_pytorch_cross_attention": device.is_cpu,  # as ComfyUI does on NVIDIA cards
                "reserve_vram": _gib(reserve_vram_bytes),
                "disable_pinned_memory": True,  # nobody else could have that memory any more
                **arguments_of(_possible(fast, device)),
            }
        )
        import_lean(("comfy.sd", "nodes", "execution", *EXTRAS, OUR_NODES))
        _register_nodes()
        memory_hooks.install()
        _mend_results()
    _redirect_log(folder)
    return device


def _possible(fast: Collection[str], device: Device) -> list[str]:
    import torch

    lacking = {name: lack(name, device.capability, torch.__version__) for name in fast}
    for name, reason in lacking.items():
        if reason:
            log.warning("fast: %s is left out: %s", name, reason)
    return [name for name, reason in lacking.items() if not reason]


def _gib(size_bytes: int | None) -> float | None:
    return None if size_bytes is None else size_bytes / (1 << 30)


def _mend_results() -> None:
    """Nodes give numbers or fail, and every schedule that a job can ask for is one."""
    from hordelib.comfyui.nodes import full_precision, schedules

    full_precision.install()
    schedules.install()


def _insist_on_same(running: ModuleType, folder: Path, device: Device) -> None:
    from comfy.model_management import get_torch_device

    loaded = Path(str(running.__file__)).resolve().parent.parent
    if loaded != folder:
        raise EngineError(f"this process runs ComfyUI from {loaded}: {folder} needs its own")
    if str(get_torch_device()) != device.name:
        used = get_torch_device()
        raise EngineError(f"this process computes on {used}: {device.name} needs one of its own")


def _refuse_strangers(folder: Path) -> None:
    for name in TOP_LEVEL:
        module = sys.modules.get(name)
        if module is not None and not str(module.__file__).startswith(str(folder)):
            raise EngineError(
                f"a module named {name!r} is loaded from {module.__file__}, and ComfyUI has one of"
                " the same name: rename yours, or start the engine in a process of its own"
            )


def _set_arguments(values: Mapping[str, object]) -> None:
    """Set ComfyUI's arguments; it parses none unless told to, so sys.argv stays ours."""
    arguments = importlib.import_module("comfy.cli_args").args
    for name, value in {**values, **versions.newer_arguments(arguments)}.items():
        if not hasattr(arguments, name):
            raise EngineError(f"ComfyUI has no argument {name!r}: not the version we know")
        setattr(arguments, name, value)


def _register_nodes() -> None:
    mappings = importlib.import_module("nodes").NODE_CLASS_MAPPINGS
    mappings |= {node.__name__: node for node in importlib.import_module(OUR_NODES).NODES}
    for name in EXTRAS:
        module = importlib.import_module(name)
        mappings |= getattr(module, "NODE_CLASS_MAPPINGS", None) or _nodes_of_extension(module)


def _nodes_of_extension(module: ModuleType) -> dict[str, type]:
    """The nodes of a module in ComfyUI's newer form."""

    async def listed() -> list[Any]:
        extension = await module.comfy_entrypoint()
        return await extension.get_node_list()

    return {node.GET_SCHEMA().node_id: node for node in asyncio.run(listed())}


@contextmanager
def _quiet_root_logger() -> Generator[None]:
    """Keep `logging.info(…)` at import from configuring the root logger of our program."""
    silencer = logging.NullHandler()
    root = logging.getLogger()
    root.addHandler(silencer)
    try:
        yield
    finally:
        root.removeHandler(silencer)


class _ComfyLogging:
    """The `logging` module of ComfyUI's modules: what they log goes to the logger `comfyui`."""

    def __getattr__(self, name: str) -> Any:
        logger = logging.getLogger("comfyui")
        is_call = name in ("debug", "info", "warning", "error", "exception", "critical", "log")
        return getattr(logger if is_call else logging, name)


def _redirect_log(folder: Path) -> None:
    for module in list(sys.modules.values()):
        inside = str(getattr(module, "__file__", None) or "").startswith(str(folder))
        if inside and getattr(module, "logging", None) is logging:
            module.__dict__["logging"] = _ComfyLogging()
