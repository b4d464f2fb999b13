"""Makes pictures: one ComfyUI, one device, one job at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from hordelib import comfy
from hordelib.device_loans import DeviceLoans
from hordelib.errors import Cancelled, GenerationFailed, ModelBroken, ModelMissing
from hordelib.gen_metadata import GenMetadata
from hordelib.graph import Graph
from hordelib.images import Picture
from hordelib.memory_budget import MemoryBudget
from hordelib.memory_readings import main_memory
from hordelib.model import Model
from hordelib.model_cache import FileStamp, ModelCache, ModelKey
from hordelib.nodes.context import NodeNotes, RunContext
from hordelib.our_nodes import model_keys
from hordelib.params import GenerationParams, images_of
from hordelib.workflows import build_graph

if TYPE_CHECKING:
    from hordelib.loaders import LoadedPart

OnStep = Callable[[int, int], None]


def unwatched(_done: int, _total: int) -> None:
    """Nobody watches the steps."""


@dataclass(frozen=True, slots=True)
class Generation:
    """What one job came to."""

    images: tuple[Picture, ...]  # image i has seed + i
    load_seconds: float  # until all files were in memory; near 0 when they already were
    run_seconds: float  # text encoding, sampling and decoding
    notes: tuple[GenMetadata, ...] = ()  # what could not be done as asked


@dataclass(frozen=True, slots=True)
class _Job:
    params: GenerationParams
    model: Model
    on_step: OnStep
    cancelled: threading.Event


class Engine:
    """ComfyUI in this process, made for one device.

    Any thread may call; jobs run one after the other on a thread of the engine's own. Nothing is
    loaded before `start` or the first job. Use it as a context manager, or call `close`.

    Args:
        comfyui: folder of ComfyUI 0.3.75; None is where `update-runtime.sh` puts it.
        device: "auto", "cpu" or "cuda:N".
        ram_reserve_bytes: main memory that stays free for others; idle models go first.
        vram_reserve_bytes: the same on the card (ComfyUI's --reserve-vram); None is its default.
    """

    def __init__(
        self,
        *,
        comfyui: Path | None = None,
        device: str = "auto",
        ram_reserve_bytes: int = 1 << 30,
        vram_reserve_bytes: int | None = None,
    ):
        self._comfyui = comfyui or comfy.default_folder()
        self._wanted_device = device
        self._vram_reserve_bytes = vram_reserve_bytes
        self._thread = ThreadPoolExecutor(1, "engine")
        self._running = threading.Event()  # set: the job at work is to stop; each has its own
        self._executor: comfy.Executor | None = None
        self._held = _Held()
        self._notes = NodeNotes()
        self._budget = MemoryBudget(lambda: main_memory().free_bytes, ram_reserve_bytes)
        self._cache: ModelCache[LoadedPart] | None = None

    def start(self) -> str:
        """Load ComfyUI (seconds) and return the device's name; the second call returns at once.

        Raises RuntimeMissing or EngineError when ComfyUI can't run in this process.
        """
        return self._thread.submit(self._start).result()

    def generate(
        self, params: GenerationParams, model: Model | Path | str, on_step: OnStep = unwatched
    ) -> Generation:
        """Make the job's pictures with a model, or a checkpoint file. `on_step(done, total)`.

        Raises a JobError where this job fails (ModelMissing, ModelBroken, OutOfMemory, Cancelled…),
        and EngineError where the process should be given up.
        """
        cancelled = threading.Event()
        model = model if isinstance(model, Model) else Model.of_checkpoint(model)
        job = _Job(params, model, on_step, cancelled)
        try:
            return self._thread.submit(self._generate, job).result()
        except BaseException:  # a KeyboardInterrupt here must not leave the device at work
            cancelled.set()
            raise

    def cancel(self) -> None:
        """Stop the job that runs: it raises Cancelled within a step. Without one, nothing."""
        self._running.set()

    def close(self) -> None:
        """Stop the job that runs and let go of all models."""
        self.cancel()
        self._thread.submit(self._let_go).result()
        self._thread.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> str:
        device = comfy.Device.choose(self._wanted_device)
        comfy.boot(self._comfyui, device, reserve_vram_bytes=self._vram_reserve_bytes)
        self._executor = self._executor or comfy.Executor()
        self._cache = self._cache or _make_cache(self._budget, self._card_budget(device))
        return device.name

    def _card_budget(self, device: comfy.Device) -> MemoryBudget | None:
        if device.is_cpu:
            return None
        reserve_bytes = self._vram_reserve_bytes or comfy.reserved_bytes()
        return MemoryBudget(
            lambda: comfy.card_free_bytes(device.name), reserve_bytes, "vram_to_leave_free"
        )

    def _generate(self, job: _Job) -> Generation:
        self._running = job.cancelled
        self._start()
        assert self._executor is not None
        graph = build_graph(job.params, job.model)
        started = time.monotonic()
        parts = self._hold(graph, job.model)
        loaded = time.monotonic()
        context = self._context(job, {key: part.value for key, part in parts.items()})
        if job.cancelled.is_set():
            raise Cancelled("stopped on request")
        assert self._cache is not None
        with DeviceLoans(self._cache, parts, {}) as loans:
            _run(self._executor, graph, context, loans.bring)
        return Generation(
            images=tuple(
                _picture(pixels, job.params, i) for i, pixels in enumerate(context.pixels)
            ),
            load_seconds=loaded - started,
            run_seconds=time.monotonic() - loaded,
            notes=self._notes.of(graph.titles),
        )

    def _enter(self, key: ModelKey) -> LoadedPart:
        assert self._cache is not None
        return self._held.stack.enter_context(self._cache.hold(key))

    def _hold(self, graph: Graph, model: Model) -> Mapping[ModelKey, LoadedPart]:
        """What the graph's loaders name, in memory until a job needs something else.

        That long, because ComfyUI's cached results refer to it.
        """
        stamps = {key: _blamed(key, model, _stamp) for key in model_keys(graph)}
        if stamps != self._held.stamps:
            self._release()
            try:
                for key in stamps:
                    self._held.parts[key] = _blamed(key, model, self._enter)
            except BaseException:
                self._release()
                raise
            self._held.stamps = stamps
        return self._held.parts

    def _context(self, job: _Job, models: dict[ModelKey, Any]) -> RunContext:
        images = images_of(job.params)
        return RunContext(models, images, self._notes, job.on_step, job.cancelled)

    def _release(self) -> None:
        if self._executor is not None:
            self._executor.forget()
        self._held.stack.close()
        self._held = _Held()

    def _let_go(self) -> None:
        self._release()
        if self._cache is not None:
            self._cache.clear()


@dataclass(slots=True)
class _Held:
    """What the last job used, and the files that it was read from."""

    stack: ExitStack = field(default_factory=ExitStack)
    parts: dict[ModelKey, LoadedPart] = field(default_factory=dict["ModelKey", "LoadedPart"])
    stamps: Mapping[ModelKey, FileStamp] = field(default_factory=dict["ModelKey", "FileStamp"])


def _run(executor: comfy.Executor, graph: Graph, context: RunContext, bring: comfy.Bring) -> None:
    """The model itself is loaded by now: a file that a node can't use is another one."""
    try:
        executor.run(graph.to_api(), context, bring)
    except ModelBroken as error:
        raise GenerationFailed(str(error)) from error


T = TypeVar("T")


def _blamed(key: ModelKey, model: Model, read: Callable[[ModelKey], T]) -> T:
    """What `read` gives. A broken LoRA or ControlNet says nothing of the model."""
    try:
        return read(key)
    except (ModelBroken, ModelMissing) as error:
        if key.path in model.files.values():
            raise
        raise GenerationFailed(str(error)) from error


def _stamp(key: ModelKey) -> FileStamp:
    return FileStamp.of(key.path)


def _make_cache(host: MemoryBudget, card: MemoryBudget | None) -> ModelCache[LoadedPart]:
    """Imported late: what reads files needs torch."""
    from hordelib.loaders import reading_bytes

    return ModelCache(comfy.read_part, host, card, weigh=reading_bytes, forget=comfy.forget_models)


def _picture(array: Any, params: GenerationParams, index: int) -> Picture:
    height, width, channels = array.shape
    mode = "RGB" if channels == 3 else "RGBA"
    return Picture(width, height, array.tobytes(), params.image_seed(index), mode)
