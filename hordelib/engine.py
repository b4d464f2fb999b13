"""Makes pictures: one ComfyUI, one device, one job at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psutil

from hordelib import comfy
from hordelib.errors import Cancelled, GenerationFailed, ModelBroken, ModelMissing
from hordelib.gen_metadata import GenMetadata
from hordelib.graph import Graph
from hordelib.images import Picture
from hordelib.model import Model
from hordelib.model_cache import MemoryBudget, ModelCache, ModelKey
from hordelib.nodes.context import NodeNotes, RunContext, Wanted
from hordelib.our_nodes import model_keys
from hordelib.params import GenerationParams, images_of
from hordelib.workflows import build_graph

OnLoaded = Callable[[], None]
OnStep = Callable[[int, int], None]


def unwatched(_done: int, _total: int) -> None:
    """Nobody watches the steps."""


def unawaited() -> None:
    """Nobody waits for the files."""


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
    job_id: str
    on_loaded: OnLoaded
    on_step: OnStep
    cancelled: threading.Event

    @property
    def wanted(self) -> tuple[Wanted, ...]:
        seed_of = self.params.image_seed
        return tuple(Wanted(self.job_id, i, seed_of(i)) for i in range(self.params.images))


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
        self._last_keys: tuple[ModelKey, ...] = ()
        self._notes = NodeNotes()
        budget = MemoryBudget(lambda: psutil.virtual_memory().available, ram_reserve_bytes)
        self._cache = ModelCache(_load, budget, comfy.forget_models)

    def start(self) -> str:
        """Load ComfyUI (seconds) and return the device's name; the second call returns at once.

        Raises RuntimeMissing or EngineError when ComfyUI can't run in this process.
        """
        return self._thread.submit(self._start).result()

    def generate(
        self,
        params: GenerationParams,
        model: Model | Path | str,
        on_step: OnStep = unwatched,
        *,
        on_loaded: OnLoaded = unawaited,
        job_id: str = "",
    ) -> Generation:
        """Make the job's pictures with a model, or a checkpoint file.

        `on_loaded()` tells that all files are in memory, `on_step(done, total)` of each step; a
        JobError that they raise ends the job. Every picture bears `job_id` and its place.

        Raises a JobError where this job fails (ModelMissing, ModelBroken, OutOfMemory, Cancelled…),
        and EngineError where the process should be given up.
        """
        cancelled = threading.Event()
        model = model if isinstance(model, Model) else Model.of_checkpoint(model)
        job = _Job(params, model, job_id, on_loaded, on_step, cancelled)
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
        return device.name

    def _generate(self, job: _Job) -> Generation:
        self._running = job.cancelled
        self._start()
        assert self._executor is not None
        graph = build_graph(job.params, job.model)
        keys = model_keys(graph)
        if keys != self._last_keys:
            self._executor.forget()  # its cached results hold on to the models before
            self._last_keys = keys
        started = time.monotonic()
        with ExitStack() as loans:
            models = {key: self._borrow(loans, key, job.model) for key in keys}
            loaded = time.monotonic()
            job.on_loaded()
            context = self._context(job, models)
            if job.cancelled.is_set():
                raise Cancelled("stopped on request")
            _run(self._executor, graph, context)
        return Generation(
            images=tuple(context.pictures),
            load_seconds=loaded - started,
            run_seconds=time.monotonic() - loaded,
            notes=self._notes.of(graph.titles),
        )

    def _borrow(self, loans: ExitStack, key: ModelKey, model: Model) -> Any:
        """A file until the loans end. A broken LoRA or ControlNet says nothing of the model."""
        try:
            return loans.enter_context(self._cache.lend(key))
        except (ModelBroken, ModelMissing) as error:
            if key.path in model.files.values():
                raise
            raise GenerationFailed(str(error)) from error

    def _context(self, job: _Job, models: dict[ModelKey, Any]) -> RunContext:
        images = images_of(job.params)
        return RunContext(models, images, self._notes, job.on_step, job.cancelled, job.wanted)

    def _let_go(self) -> None:
        if self._executor is not None:
            self._executor.forget()
            self._last_keys = ()
            self._cache.clear()


def _run(executor: comfy.Executor, graph: Graph, context: RunContext) -> None:
    """The model itself is loaded by now: a file that a node can't use is another one."""
    try:
        executor.run(graph.to_api(), context)
    except ModelBroken as error:
        raise GenerationFailed(str(error)) from error


def _load(key: ModelKey) -> Any:
    """Imported late: what reads files needs torch."""
    from hordelib.loaders import load

    return load(key)
