"""Makes pictures: one ComfyUI, one device, one job at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from hordelib.alchemy.device_forms import NO_MODEL, device_params, fitted
from hordelib.alchemy.plain_forms import PLAIN_FORMS
from hordelib.comfyui import memory_hooks
from hordelib.comfyui.boot import boot
from hordelib.comfyui.device import (
    Device,
    card_budget,
    default_folder,
    memory_record,
    settler,
)
from hordelib.comfyui.executor import Executor, GraphRun
from hordelib.comfyui.nodes.context import RunContext, Wanted
from hordelib.errors import Cancelled, GenerationFailed, ModelBroken, NotNumbers
from hordelib.files.model import Model
from hordelib.files.model_key import ModelKey
from hordelib.graph import Graph
from hordelib.graphs.build import build_graph, build_shared_graph
from hordelib.graphs.node_names import model_keys
from hordelib.graphs.stages.prompts import texts_of
from hordelib.job.batching import Member, common_params, share_key, source_name
from hordelib.job.images import Picture, SourceImage
from hordelib.job.notes import GenMetadata
from hordelib.job.params import FromImage, GenerationParams, images_of
from hordelib.memory.budget import MemoryBudget
from hordelib.memory.cache import ModelCache
from hordelib.memory.corrections import Corrections
from hordelib.memory.estimates import BatchSizes, Estimates
from hordelib.memory.heap import keep_heap
from hordelib.memory.job_models import JobModels, Plan, read_ahead
from hordelib.memory.loans import Lender
from hordelib.memory.post_processing import ProcessingEstimates
from hordelib.memory.readings import main_memory

if TYPE_CHECKING:
    from hordelib.memory.parts import LoadedPart

OnLoaded = Callable[[], None]
OnStep = Callable[[int, int], None]


def unwatched(_done: int, _total: int) -> None:
    """Nobody watches the steps."""


def unawaited() -> None:
    """Nobody waits for the files."""


@dataclass(frozen=True, slots=True)
class Generation:
    """What one job came to. Times and bytes are those of the whole run, if jobs shared it."""

    images: tuple[Picture, ...]  # image i has seed + i
    load_seconds: float  # until all files were in memory; near 0 when they already were
    run_seconds: float  # text encoding, sampling and decoding
    notes: tuple[GenMetadata, ...] = ()  # what could not be done as asked
    phases: Mapping[str, float] = field(default_factory=dict[str, float])  # seconds; see phases.py
    share: float = 1.0  # of the run, by images: less where jobs shared it
    predicted_bytes: int = 0  # of the device's memory, beside the models' weights, at most
    measured_bytes: int = 0
    answers: tuple[Any, ...] = ()  # about each image, or about the source instead of one
    was_wide: bool = False  # some of it computed in 32 bits: what it took says nothing of others


@dataclass(frozen=True, slots=True)
class _Run:
    members: tuple[Member, ...]
    model: Model
    on_loaded: OnLoaded
    on_step: OnStep
    cancelled: threading.Event

    @property
    def params(self) -> GenerationParams:
        return common_params(self.members)

    @property
    def wanted(self) -> tuple[Wanted, ...]:
        return tuple(
            Wanted(member.job_id, i, member.params.image_seed(i))
            for member in self.members
            for i in range(member.params.images)
        )

    @property
    def images(self) -> dict[str, SourceImage]:
        if len(self.members) == 1:
            return images_of(self.params)
        common = {name: image for name, image in images_of(self.params).items() if name != "source"}
        sources = {
            source_name(i): member.params.source.image
            for i, member in enumerate(self.members)
            if isinstance(member.params.source, FromImage)
        }
        return common | sources


class Engine:
    """ComfyUI in this process, made for one device.

    Any thread may call; jobs run one after the other on a thread of the engine's own. Nothing is
    loaded before `start` or the first job. Use it as a context manager, or call `close`.

    Args:
        comfyui: folder of ComfyUI 0.3.75 or 0.33.0; None is where `update-runtime.sh` puts it.
        device: "auto", "cpu" or "cuda:N".
        ram_reserve_bytes: main memory that stays free for others; idle models go first.
        vram_reserve_bytes: the same on the card (ComfyUI's --reserve-vram); None is its default.
        free_ram_bytes: says how much main memory is free now; the default asks the machine.
        memory_file: keeps what is learnt of the memory that jobs take; None forgets it at the end.
        fast: names of hordelib.comfyui.fast.SWITCHES, which change pictures a little.

    The process' memory is allocated as `hordelib.memory.heap.keep_heap` says from then on.
    """

    def __init__(  # noqa: PLR0913 - an owner's settings, each with a default
        self,
        *,
        comfyui: Path | None = None,
        device: str = "auto",
        ram_reserve_bytes: int = 1 << 30,
        vram_reserve_bytes: int | None = None,
        free_ram_bytes: Callable[[], int] = lambda: main_memory().free_bytes,
        memory_file: Path | None = None,
        fast: Collection[str] = (),
    ):
        keep_heap()  # before there is a thread that computes
        self._comfyui = comfyui or default_folder()
        self._wanted_device = device
        self._vram_reserve_bytes = vram_reserve_bytes
        self._memory_file = memory_file
        self._fast = fast
        self._ram = MemoryBudget(free_ram_bytes, ram_reserve_bytes)
        self._thread = ThreadPoolExecutor(1, "engine")
        self._reader = ThreadPoolExecutor(1, "read ahead")
        self._running = threading.Event()  # set: the job at work is to stop; each has its own
        self._loaded: _Loaded | None = None

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
        model = model if isinstance(model, Model) else Model.of_checkpoint(model)
        member = Member(job_id, params)
        (generation,) = self.generate_together([member], model, on_step, on_loaded=on_loaded)
        return generation

    def generate_together(
        self,
        members: Sequence[Member],
        model: Model,
        on_step: OnStep = unwatched,
        *,
        on_loaded: OnLoaded = unawaited,
    ) -> tuple[Generation, ...]:
        """Make the pictures of several jobs in one batch, as each alone would be; one for each job.

        Raises what `generate` does, for all of them, and ValueError where they don't agree in what
        `share_key` compares.
        """
        keys = {share_key(member.params, model.family) for member in members}
        if len(members) > 1 and (len(keys) > 1 or None in keys):
            raise ValueError("these jobs can't share a batch")
        cancelled = threading.Event()
        run = _Run(tuple(members), model, on_loaded, on_step, cancelled)
        try:
            return self._thread.submit(self._generate, run).result()
        except BaseException:  # a KeyboardInterrupt here must not leave the device at work
            cancelled.set()
            raise

    def alchemy(
        self, form: str, image: SourceImage, models: Path | str = "models", control_type: str = ""
    ) -> Picture | dict[str, Any] | str | float:
        """One of the horde's forms over an image.

        describe, palette and interrogation give a dictionary, vectorize SVG, caption a sentence and
        aesthetic a score; an upscaler, face fixer, strip_background and annotation, which draws
        `control_type`, a picture. `models` is the folder with their weights. Raises what `generate`
        does, and InvalidParams for others.
        """
        if plain := PLAIN_FORMS.get(form):
            return plain(image)
        params = device_params(form, image, Path(models), control_type)
        done = self.generate(params, NO_MODEL)
        return done.answers[0] if params.question else fitted(form, done.images[0], image)

    def prepare(self, params: GenerationParams, model: Model) -> Future[None]:
        """Read what this job will need while another one is at work, as far as there is room.

        Returns at once. What is wrong with a file, only the job itself will say.
        """
        return self.read_ahead(model_keys(build_graph(params, model)))

    def read_ahead(self, keys: Collection[ModelKey]) -> Future[None]:
        """As `prepare`, of these files."""
        return self._reader.submit(self._read_ahead, keys)

    def cancel(self) -> None:
        """Stop the job that runs: it raises Cancelled within a step. Without one, nothing."""
        self._running.set()

    def close(self) -> None:
        """Stop the job that runs and let go of all models."""
        self.cancel()
        self._reader.shutdown()
        self._thread.submit(self._let_go).result()
        self._thread.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> str:
        device = boot(
            self._comfyui,
            self._wanted_device,
            reserve_vram_bytes=self._vram_reserve_bytes,
            fast=self._fast,
        )
        if self._loaded is None:
            device.insist_on_kernels()
            self._loaded = self._load(device)
        return device.name

    def _load(self, device: Device) -> _Loaded:
        card = card_budget(device, self._vram_reserve_bytes)
        cache = ModelCache(
            memory_hooks.read_part,
            self._ram,
            card,
            weigh=memory_hooks.reading_bytes,
            forget=memory_hooks.forget_models,
            settle=settler(device, card),
        )
        executor = Executor(device)
        corrections = Corrections(device.title, self._memory_file)
        estimates = Estimates(4 if device.is_cpu else 2, corrections)
        processing = ProcessingEstimates(corrections)
        record = memory_record(device)
        models = JobModels(cache, executor.forget, estimates, processing, record)
        return _Loaded(device, executor, cache, models)

    def _generate(self, run: _Run) -> tuple[Generation, ...]:
        self._running = run.cancelled
        self._start()
        assert self._loaded is not None
        models = self._loaded.models
        graph = build_shared_graph(run.members, run.model)
        started = time.monotonic()
        models.hold(model_keys(graph), run.model)
        loaded = time.monotonic()
        run.on_loaded()
        plan = models.plan(run.params, run.model.family)
        context = self._context(run, graph, models, plan)
        if run.cancelled.is_set():
            raise Cancelled("stopped on request")
        with models.lent(plan, context.sizes) as loans:
            done = _run(self._loaded.executor, graph, context, loans, run.model)
        whole = Generation(
            images=(),
            load_seconds=loaded - started,
            run_seconds=time.monotonic() - loaded,
            phases=done.phases,
            predicted_bytes=plan.peak_bytes,
            measured_bytes=loans.measured_bytes,
            was_wide=models.was_wide,
        )
        return tuple(_part(whole, done, context, i) for i in range(len(run.members)))

    def _context(self, run: _Run, graph: Graph, models: JobModels, plan: Plan) -> RunContext:
        return RunContext(
            models.values,
            run.images,
            run.on_step,
            run.cancelled,
            run.wanted,
            BatchSizes(plan.images_at_once),
            plan.tile_sides,
            texts_of(graph),
        )

    def _read_ahead(self, keys: Collection[ModelKey]) -> None:
        if self._loaded is not None:
            self._loaded.device.select()
            read_ahead(self._loaded.cache, keys)

    def _let_go(self) -> None:
        if self._loaded is not None:
            self._loaded.models.release()
            self._loaded.cache.clear()


@dataclass(frozen=True, slots=True)
class _Loaded:
    """What there is once ComfyUI runs."""

    device: Device
    executor: Executor
    cache: ModelCache[LoadedPart]
    models: JobModels


def _run(
    executor: Executor, graph: Graph, context: RunContext, lender: Lender, model: Model
) -> GraphRun:
    """The model itself is loaded by now: a file that a node can't use is another one."""
    try:
        return executor.run(graph.to_api(), context, lender)
    except ModelBroken as error:
        raise GenerationFailed(str(error)) from error
    except NotNumbers:
        from hordelib.comfyui.loaders.soundness import insist_on_sound_auxiliaries

        insist_on_sound_auxiliaries(context.models, model)
        raise


def _part(whole: Generation, done: GraphRun, context: RunContext, i: int) -> Generation:
    """What one of the jobs gets of a run."""
    own = context.of_member(i)
    share = len(context.wanted[own]) / len(context.wanted)
    notes = dict.fromkeys(note for node in done.notes for note in node.to(i))  # each once
    return replace(
        whole,
        images=tuple(context.pictures[own]),
        answers=tuple(context.answers[own]),
        share=share,
        notes=tuple(notes),
    )
