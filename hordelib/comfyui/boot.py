"""ComfyUI, headless, inside this process: started once, its log and arguments kept to itself.

The only module that knows ComfyUI's global surfaces. Written against ComfyUI 0.3.75.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import sys
from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from hordelib.comfyui.device_faults import device_trouble, first_line
from hordelib.comfyui.lean_imports import import_lean
from hordelib.comfyui.nodes.context import NOTES, NodeNotes, RunContext
from hordelib.comfyui.phases import OTHER, PHASES, Clock, HostClock, Stopwatch
from hordelib.errors import (
    Cancelled,
    EngineError,
    GenerationFailed,
    JobError,
    RuntimeMissing,
)
from hordelib.files.model_key import ModelKey
from hordelib.memory.budget import MemoryBudget
from hordelib.memory.heap import trim_heap
from hordelib.memory.lending import LENDER, Lender
from hordelib.memory.peak import Record
from hordelib.memory.readings import anonymous_bytes, card_memory

if TYPE_CHECKING:
    from hordelib.memory.parts import LoadedPart

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


def default_folder() -> Path:
    """Where update-runtime.sh puts ComfyUI: in $DREAMER_RUNTIME, or beside the packages."""
    runtime = os.environ.get("DREAMER_RUNTIME") or Path(__file__).parents[2]
    return Path(runtime) / ".runtime" / "ComfyUI"


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

    def select(self) -> None:
        """Make it the one that ComfyUI computes on when called from this thread."""
        import torch

        if not self.is_cpu:
            torch.cuda.set_device(torch.device(self.name))


def boot(folder: Path, device: Device, *, reserve_vram_bytes: int | None = None) -> None:
    """Load ComfyUI from `folder`. The second call does nothing; ComfyUI has one state a process.

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
    running = sys.modules.get("comfy.cli_args")
    if running is not None:
        _insist_on_same(running, folder, device)
        device.select()
        return
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
            }
        )
        import_lean(("comfy.sd", "nodes", "execution"))
        _register_nodes()
        _map_files()
        _leave_memory_to_us()
        _mend_results()
    _redirect_log(folder)


def _gib(size_bytes: int | None) -> float | None:
    return None if size_bytes is None else size_bytes / (1 << 30)


def _leave_memory_to_us() -> None:
    """Who lends models brings them, makes room for them, and says what memory there is.

    ComfyUI looks these functions up in their modules at each call, which is the only way in.
    """
    import comfy.model_management as memory

    load_models, unload_models = memory.load_models_gpu, memory.free_memory
    measure_free = memory.get_free_memory

    def load_models_gpu(models: Collection[Any], *args: Any, **options: Any) -> None:
        lender = LENDER.get()
        if lender is None:
            load_models(models, *args, **options)
            return
        with lender.undisturbed():
            lender.bring(models)
            load_models(models, *args, **options)

    def free_memory(size_bytes: Any, device: Any, *args: Any, **options: Any) -> Any:
        lender = LENDER.get()
        if lender is None:
            return unload_models(size_bytes, device, *args, **options)
        with lender.undisturbed():
            if device == memory.get_torch_device():
                lender.make_room(int(size_bytes) + 1)  # more than that is what it looks for
            return unload_models(size_bytes, device, *args, **options)

    def get_free_memory(device: Any = None, torch_free_too: bool = False) -> Any:
        lender = LENDER.get()
        device = memory.get_torch_device() if device is None else device
        if lender is None or device != memory.get_torch_device():
            return measure_free(device, torch_free_too)
        spare_bytes = max(0, lender.spare_bytes())
        if not torch_free_too:
            return spare_bytes
        torch_bytes = spare_bytes if device.type == "cpu" else measure_free(device, True)[1]
        return spare_bytes, torch_bytes

    memory.cleanup_models_gc = _drop_what_is_gone  # called before each graph, too
    memory.load_models_gpu = load_models_gpu
    memory.free_memory = free_memory
    memory.get_free_memory = get_free_memory


def _map_files() -> None:
    """Files are read as what they are, and mapped; models start in main memory."""
    import comfy.model_management as memory
    import comfy.utils as files

    from hordelib.comfyui.loaders import tensors
    from hordelib.memory import mapped_weights

    tensors.allow_leftovers()

    def load_torch_file(path: str, *, return_metadata: bool = False, **_options: Any) -> Any:
        read = partial(tensors.read_tensors, Path(path))
        state, metadata = mapped_weights.read_mapped(Path(path), read)
        return (state, metadata) if return_metadata else state

    files.load_torch_file = load_torch_file
    memory.unet_inital_load_device = memory.text_encoder_initial_device = _main_memory
    mapped_weights.install()


def _mend_results() -> None:
    """Nodes give numbers or fail, and every schedule that a job can ask for is one."""
    from hordelib.comfyui.nodes import full_precision, schedules

    full_precision.install()
    schedules.install()


def _drop_what_is_gone() -> None:
    """Take patchers that are gone out of ComfyUI's list of loaded models.

    ComfyUI collects all garbage whenever it finds one there, often in vain: of a patcher that is
    collected together with the one it was cloned from, the entry stays for as long as its model.
    What is known of the model's weights is kept by the model, and by the patcher that we hold.
    """
    import comfy.model_management as memory

    loaded = memory.current_loaded_models
    loaded[:] = [each for each in loaded if not each.is_dead()]


def _main_memory(*_arguments: Any) -> Any:
    import torch

    return torch.device("cpu")


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
    for name, value in values.items():
        if not hasattr(arguments, name):
            raise EngineError(f"ComfyUI has no argument {name!r}: not the version we know")
        setattr(arguments, name, value)


def _register_nodes() -> None:
    from hordelib.comfyui.nodes.registry import NODES

    mappings = importlib.import_module("nodes").NODE_CLASS_MAPPINGS
    mappings |= {node.__name__: node for node in NODES}
    _register_extras(mappings)


# Modules of ComfyUI's own nodes that our graphs use, beside those of nodes.py.
EXTRAS = (
    "nodes_flux",
    "nodes_ip2p",
    "nodes_mask",
    "nodes_model_advanced",
    "nodes_post_processing",
    "nodes_sd3",
    "nodes_stable_cascade",
)


def _register_extras(mappings: dict[str, type]) -> None:
    for name in EXTRAS:
        module = importlib.import_module(f"comfy_extras.{name}")
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


def card_budget(device: Device, reserve_bytes: int | None) -> MemoryBudget | None:
    """The card's, with ComfyUI's own reserve where none is given; None where there is no card."""
    import comfy.model_management

    if device.is_cpu:
        return None
    if reserve_bytes is None:
        reserve_bytes = int(comfy.model_management.EXTRA_RESERVED_VRAM)
    comfy.model_management.EXTRA_RESERVED_VRAM = 0  # our budget knows of it already
    return MemoryBudget(lambda: _card_free_bytes(device.name), reserve_bytes, "vram_to_leave_free")


def _card_free_bytes(device: str) -> int:
    """Of the whole card, whoever uses the rest, and of what torch has for us and does not use."""
    import torch

    cuda: Any = torch.cuda  # its types are incomplete
    spare_bytes = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return card_memory(f"GPU-{cuda.get_device_properties(device).uuid}").free_bytes + spare_bytes


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


def reading_bytes(key: ModelKey) -> int:
    """The most that `read_part` takes of main memory; nothing of a file that is mapped."""
    from hordelib.comfyui.loaders import reading_bytes

    return reading_bytes(key)


def read_part(key: ModelKey) -> LoadedPart:
    """For the cache; what reading took for itself is given back. Raises what loaders do."""
    from hordelib.comfyui.loaders import load_part

    part = load_part(key)
    trim_heap()
    return part


def forget_models() -> None:
    """Give the memory of models that nobody refers to any more back to the system."""
    import gc

    import comfy.model_management

    gc.collect()
    comfy.model_management.cleanup_models()
    comfy.model_management.soft_empty_cache()
    trim_heap()


@dataclass(frozen=True, slots=True)
class GraphRun:
    """What ComfyUI tells of a graph that it has executed."""

    phases: Mapping[str, float]  # the seconds that went into each of hordelib.comfyui.phases
    notes: tuple[NodeNotes, ...]  # of its nodes, in their order


class Executor:
    """ComfyUI's PromptExecutor, kept alive, so that what did not change is not computed again."""

    def __init__(self, device: Device) -> None:
        import execution

        self._listener = _Listener(HostClock() if device.is_cpu else _CardClock())
        self._comfy = execution.PromptExecutor(
            self._listener, execution.CacheType.CLASSIC, {"lru": 0, "ram": 0}
        )
        # ComfyUI passes only an error's text on; we want the error.
        self._comfy.handle_execution_error = self._remember
        self._failures: list[tuple[str, Exception | None]] = []

    def run(
        self, graph: Mapping[str, Any], context: RunContext, lender: Lender | None = None
    ) -> GraphRun:
        """Execute the graph's node `output` and all that it reads; `context` reaches our nodes.

        Without a `lender`, all models have to be where they are computed with.
        Raises Cancelled, OutOfMemory, GenerationFailed, or EngineError for a fault of the device.
        """
        self._failures.clear()
        extra = {"extra_pnginfo": context, "client_id": "dreamer"}  # else nodes are not told of
        self._listener.listen(graph)
        token = LENDER.set(lender)
        try:
            asyncio.run(self._comfy.execute_async(dict(graph), "job", extra, ["output"]))
        finally:
            LENDER.reset(token)
        if self._failures:
            node, error = self._failures.pop()
            raise _explain(node, error) from error
        return GraphRun(self._listener.stopwatch.stop(), tuple(self._notes(graph)))

    def _notes(self, graph: Mapping[str, Any]) -> Generator[NodeNotes]:
        """From the very entries of ComfyUI's cache that the results of this graph are in."""
        for title in graph:
            entry = self._comfy.caches.outputs.get(title)
            if entry is not None and entry.ui is not None:
                yield from entry.ui["output"].get(NOTES, ())

    def _remember(self, *arguments: Any) -> None:
        *_, details, error = arguments
        self._failures.append((details["node_id"], error))

    def forget(self) -> None:
        """Drop all cached results, and with them the references to models."""
        self._comfy.reset()


class _Listener:
    """The part of ComfyUI's web server that its executor talks to: hears which node begins."""

    client_id = None
    last_node_id = None
    last_prompt_id = None
    sockets_metadata: Mapping[str, Any] = {}

    def __init__(self, clock: Clock[Any]) -> None:
        self._graph: Mapping[str, Any] = {}
        self._clock = clock
        self.stopwatch = Stopwatch(clock)

    def listen(self, graph: Mapping[str, Any]) -> None:
        self._graph = graph
        self.stopwatch = Stopwatch(self._clock)

    def send_sync(self, event: str, data: Any, sid: str | None = None) -> None:
        """Progress comes from our sampler node instead."""
        if event == "executing" and data["node"] in self._graph:
            self.stopwatch.enter(PHASES.get(self._graph[data["node"]]["class_type"], OTHER))


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


def _explain(node: str, error: Exception | None) -> JobError | EngineError:
    from comfy.model_management import InterruptProcessingException

    if isinstance(error, JobError | EngineError):
        return error
    if isinstance(error, InterruptProcessingException):
        return Cancelled("stopped on request")
    failed = GenerationFailed(f"{node}: {type(error).__name__}: {first_line(error)}")
    return device_trouble(node, error) or failed
