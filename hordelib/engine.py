"""Makes pictures: one ComfyUI, one device, one job at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psutil

from hordelib import comfy
from hordelib.errors import Cancelled
from hordelib.images import Picture
from hordelib.model_cache import MemoryBudget, ModelCache
from hordelib.nodes.context import Checkpoint, RunContext
from hordelib.params import GenerationParams
from hordelib.workflows import text_to_image

OnStep = Callable[[int, int], None]


def unwatched(_done: int, _total: int) -> None:
    """Nobody watches the steps."""


@dataclass(frozen=True, slots=True)
class Generation:
    """What one job came to."""

    images: tuple[Picture, ...]  # image i has seed + i
    load_seconds: float  # until the checkpoint was in memory; near 0 when it already was
    run_seconds: float  # text encoding, sampling and decoding


@dataclass(frozen=True, slots=True)
class _Job:
    params: GenerationParams
    checkpoint: Path
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
        self._last_checkpoint: Path | None = None
        budget = MemoryBudget(lambda: psutil.virtual_memory().available, ram_reserve_bytes)
        self._cache = ModelCache(comfy.load_checkpoint, budget, comfy.forget_models)

    def start(self) -> str:
        """Load ComfyUI (seconds) and return the device's name; the second call returns at once.

        Raises RuntimeMissing or EngineError when ComfyUI can't run in this process.
        """
        return self._thread.submit(self._start).result()

    def generate(
        self, params: GenerationParams, checkpoint: Path | str, on_step: OnStep = unwatched
    ) -> Generation:
        """Make the job's pictures with the checkpoint file. `on_step(done, total)` per step.

        Raises a JobError where this job fails (ModelMissing, ModelBroken, OutOfMemory, Cancelled…),
        and EngineError where the process should be given up.
        """
        cancelled = threading.Event()
        job = _Job(params, Path(checkpoint).resolve(), on_step, cancelled)
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
        if job.checkpoint != self._last_checkpoint:
            self._executor.forget()  # its cached results hold on to the model before
            self._last_checkpoint = job.checkpoint
        started = time.monotonic()
        with self._cache.lend(job.checkpoint) as model:
            loaded = time.monotonic()
            context = self._run(self._executor, job, model)
        return Generation(
            images=tuple(
                _picture(pixels, job.params, i) for i, pixels in enumerate(context.pixels)
            ),
            load_seconds=loaded - started,
            run_seconds=time.monotonic() - loaded,
        )

    def _run(self, executor: comfy.Executor, job: _Job, model: Checkpoint) -> RunContext:
        if job.cancelled.is_set():
            raise Cancelled("stopped on request")
        name = str(job.checkpoint)
        context = RunContext({name: model}, job.on_step, job.cancelled)
        executor.run(text_to_image(job.params, name, model.native_side).to_api(), context)
        return context

    def _let_go(self) -> None:
        if self._executor is not None:
            self._executor.forget()
            self._last_checkpoint = None
            self._cache.clear()


def _picture(array: Any, params: GenerationParams, index: int) -> Picture:
    height, width, _ = array.shape
    return Picture(width, height, array.tobytes(), params.image_seed(index))
