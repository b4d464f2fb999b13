"""The models of the job at work: held until the next job needs others, lent while they compute."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from hordelib.errors import (
    AuxiliaryBroken,
    GenerationFailed,
    JobError,
    ModelBroken,
    ModelMissing,
)
from hordelib.files.headers import detect
from hordelib.files.model import Model
from hordelib.files.model_key import FileStamp, ModelKey
from hordelib.job.families import Family
from hordelib.job.params import GenerationParams
from hordelib.memory.cache import Held, ModelCache
from hordelib.memory.estimates import BatchSizes, Estimates, MemoryEstimate
from hordelib.memory.loans import DeviceLoans
from hordelib.memory.peak import PeakMemory, Record
from hordelib.memory.post_processing import Processing, ProcessingEstimates, pictures_of
from hordelib.memory.wide_parts import PRECISION, File, RunPrecision, WideParts

if TYPE_CHECKING:
    from hordelib.memory.parts import LoadedPart

READER_BYTES = 256 << 20  # for BLIP with three beams for four pictures; a guess
REQUEST_BYTES = 128 << 10  # what Linux reads ahead by default

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Plan:
    """What one job gets of the device."""

    params: GenerationParams
    estimate: MemoryEstimate
    images_at_once: int
    drawing: Collection[ModelKey]  # what computes to make the picture
    decoding_room_bytes: int  # with nothing else on the device; tiles have to do with it
    processing: Mapping[ModelKey, Processing]

    def working_bytes(self, key: ModelKey, images: int) -> int:
        """Beside the weights, with so many images at once."""
        if key in self.processing:
            return self.processing[key].working_bytes
        if key.kind == "picture_reader":
            return READER_BYTES
        if key not in self.drawing:
            return 0
        if _samples(key):
            return self.estimate.sampling_bytes(self.params, images)
        if _uncovers(key):
            return self.estimate.uncovering_bytes(self.params)
        return min(self.estimate.decoding_bytes(self.params), self.decoding_room_bytes)

    def drawing_bytes(self, images: int) -> int:
        """What making the picture takes at most."""
        return max((self.working_bytes(key, images) for key in self.drawing), default=0)

    @property
    def peak_bytes(self) -> int:
        processing = [each.working_bytes for each in self.processing.values()]
        return max([self.drawing_bytes(self.images_at_once), *processing])

    @property
    def tile_sides(self) -> dict[ModelKey, int]:
        """In how large tiles upscalers work."""
        return {key: each.side for key, each in self.processing.items()}


class JobModels:
    """What the engine's thread uses of the cache.

    A job's models stay after it, because ComfyUI's cached results refer to them; `forget` drops
    those before other models are loaded. `record` is of what the process has of the device.
    """

    def __init__(
        self,
        cache: ModelCache[LoadedPart],
        forget: Callable[[], None],
        estimates: Estimates,
        processing: ProcessingEstimates,
        record: Record,
    ):
        self._cache = cache
        self._estimates = estimates
        self._processing = processing
        self._record = record
        self._forget = forget
        self._stack = ExitStack()
        self._wide = WideParts()
        self._stamps: Mapping[ModelKey, FileStamp] = {}
        self.held: dict[ModelKey, Held[LoadedPart]] = {}
        self.was_wide = False  # some of the last run computed in 32 bits instead of 16

    @property
    def values(self) -> dict[ModelKey, Any]:
        """What nodes take, by the files that the graph names."""
        return {key: held.part.value for key, held in self.held.items()}

    def hold(self, keys: Iterable[ModelKey], model: Model) -> None:
        """Have these and nothing else in memory until the next call; read what isn't there.

        Raises ModelMissing and ModelBroken for the model's own files, GenerationFailed for LoRAs,
        AuxiliaryBroken for others, and OutOfMemory.
        """
        stamps = {key: _blamed(key, model, _stamp) for key in keys}
        if stamps == self._stamps:
            return
        self.release()
        if any(key.path == model.main for key in stamps):  # a control map needs none of it
            _insist_on_family(model)
        try:
            for key in stamps:
                self.held[key] = _blamed(key, model, self._enter)
        except BaseException:
            self.release()
            raise
        self._stamps = stamps

    def plan(self, params: GenerationParams, family: Family) -> Plan:
        """How to fit the job into the device, with the models that are held."""
        vaes = [_weights_bytes(held.part) for key, held in self.held.items() if _decodes(key)]
        estimate = self._estimates.of(family, max(vaes, default=0))
        estimate = estimate.computed_in(self._value_bytes(_samples), self._value_bytes(_decodes))
        if self._wide.are_wide(frozenset(self._files())):
            estimate = estimate.widened()
        weights = [_weights_bytes(held.part) for key, held in self.held.items() if _samples(key)]
        steering = [_weights_bytes(held.part) for key, held in self.held.items() if _steers(key)]
        whole_bytes = self._cache.room_bytes()
        room_bytes = whole_bytes - max(weights, default=0) - sum(steering)
        images = estimate.images_at_once(params, room_bytes)
        draw = (_samples, _decodes, _uncovers)
        drawing = [key for key in self.held if any(does(key) for does in draw)]
        decoding_room_bytes = self._decoding_room_bytes(whole_bytes - max(vaes, default=0))
        processing = dict(self._plan_processing(params))
        return Plan(params, estimate, images, drawing, decoding_room_bytes, processing)

    @contextmanager
    def lent(self, plan: Plan, sizes: BatchSizes) -> Generator[DeviceLoans]:
        """Lend ComfyUI what it asks for, and learn from a run without errors what it took.

        What computed in 32 bits instead of 16 says nothing of other runs.
        """

        def working_bytes(key: ModelKey) -> int:
            return plan.working_bytes(key, sizes.now or plan.images_at_once)

        with (
            PeakMemory(self._record, self._cache.device_bytes, self._cache.undisturbed) as peak,
            DeviceLoans(self.held, working_bytes, self._cache, peak.restart) as loans,
        ):
            self._tell_vaes(plan)
            precision = RunPrecision(self._wide, dict(self._networks()))
            token = PRECISION.set(precision)
            try:
                yield loans
            finally:
                PRECISION.reset(token)
        self.was_wide = precision.was_wide
        if not self.was_wide:
            self._learn(plan, loans.measured, sizes.largest)

    def _tell_vaes(self, plan: Plan) -> None:
        """Have ComfyUI ask for what decoding takes by our estimate, and not by its own.

        Its own is several times as much, and it takes weights off the card for it. It asks for so
        much for each image, of as many of them as it finds room for.
        """

        def used(_shape: object, _dtype: object) -> int:
            return plan.estimate.decoding_bytes(plan.params)

        for held in self._on_card(_decodes):
            held.part.value.memory_used_decode = used

    def _decoding_room_bytes(self, left_bytes: int) -> int:
        """On a card, as much as there is: where that is not enough, ComfyUI decodes in tiles.

        Main memory does not say that it is at its end.
        """
        return max(0, left_bytes) if any(self._on_card(_decodes)) else sys.maxsize

    def _on_card(self, does: Callable[[ModelKey], bool]) -> Iterator[Held[LoadedPart]]:
        for key, held in self.held.items():
            if does(key) and any(each.load_device.type != "cpu" for each in held.part.patchers):
                yield held

    def _value_bytes(self, does: Callable[[ModelKey], bool]) -> int | None:
        from hordelib.memory.parts import value_bytes

        known = [value_bytes(held.part) for key, held in self.held.items() if does(key)]
        return max((each for each in known if each), default=None)

    def _files(self) -> Iterator[File]:
        """What makes the picture."""
        for key in self.held:
            if _samples(key) or _decodes(key) or _steers(key):
                yield key, self._stamps[key]

    def _networks(self) -> Iterator[tuple[int, File]]:
        for key, held in self.held.items():
            for patcher in held.part.patchers:
                yield id(patcher.model), (key, self._stamps[key])

    def _plan_processing(self, params: GenerationParams) -> Iterator[tuple[ModelKey, Processing]]:
        room_bytes = self._cache.room_bytes()
        for key, pictures in pictures_of(params, self._scale):
            left_bytes = room_bytes - _weights_bytes(self.held[key].part)
            yield key, self._processing.of(key, pictures, left_bytes)

    def _scale(self, key: ModelKey) -> int:
        return getattr(self.held[key].part.value, "scale", 1)

    def _learn(self, plan: Plan, measured: Mapping[ModelKey, int], images: int) -> None:
        """From what was computed, not from what ComfyUI had of before."""
        if set(plan.drawing) <= measured.keys():
            estimate, params = plan.estimate, plan.params
            sampled = [measured[key] for key in plan.drawing if _samples(key)]
            decoded = [measured[key] for key in plan.drawing if _decodes(key)]
            if sampled:
                predicted_bytes = estimate.sampling_bytes(params, images)
                self._estimates.correct(estimate, predicted_bytes, max(sampled))
            if decoded:
                predicted_bytes = estimate.decoding_bytes(params)
                self._estimates.correct_decoding(
                    estimate, predicted_bytes, max(decoded), params.images
                )
        for key in plan.processing.keys() & measured.keys():
            predicted_bytes = plan.processing[key].working_bytes
            self._processing.correct(key, predicted_bytes, measured[key])

    def release(self) -> None:
        """Hold nothing any more; the cache keeps what there is room for."""
        self._forget()
        self.held = {}
        self._stamps = {}
        self._stack.close()

    def _enter(self, key: ModelKey) -> Held[LoadedPart]:
        return self._stack.enter_context(self._cache.hold(key))


def _samples(key: ModelKey) -> bool:
    return key.kind == "diffusion_model" or (key.kind, key.variant) == ("checkpoint", "unet")


def _steers(key: ModelKey) -> bool:
    """Whether it computes beside the UNet, at every step."""
    return key.kind in ("control_net", "attention_sharing")


def _decodes(key: ModelKey) -> bool:
    return key.kind == "vae" or (key.kind, key.variant) == ("checkpoint", "vae")


def _uncovers(key: ModelKey) -> bool:
    """Whether it tells the opacity of what was decoded."""
    return key.kind == "transparent_decoder"


def _weights_bytes(part: LoadedPart) -> int:
    return part.device_bytes + part.missing_bytes


def read_ahead(cache: ModelCache[LoadedPart], keys: Collection[ModelKey]) -> None:
    """Get from disk what a job will need, as far as there is room; any thread may do it.

    Says nothing of what is wrong with a file: the job itself will.
    """
    far = [key for key in keys if not cache.is_in_memory(key)]
    for key in keys:
        with suppress(JobError), cache.hold(key):  # what is at hand is to stay
            pass
    for path in dict.fromkeys(key.path for key in far):
        with suppress(OSError):
            if path.stat().st_size <= cache.spare_host_bytes():  # else it would push itself out
                fill_page_cache(path)


def fill_page_cache(path: Path) -> None:
    """So that the pages of a mapped file are there when the device asks for them.

    Next to nothing for those that are. Of one request, Linux reads no more than it reads ahead.
    """
    if sys.platform != "linux":
        return
    with path.open("rb", buffering=0) as file:
        for start in range(0, path.stat().st_size, REQUEST_BYTES):
            os.posix_fadvise(file.fileno(), start, REQUEST_BYTES, os.POSIX_FADV_WILLNEED)


def _insist_on_family(model: Model) -> None:
    """Its graphs are made for one; somebody may have put another model in its file's place."""
    path = model.main
    family, channels = _kind(path, FileStamp.of(path))
    if (family, channels) != (model.family, model.channels):
        raise ModelBroken(f"{path.name} was replaced by another kind of model ({family.name})")


@lru_cache(maxsize=100)
def _kind(path: Path, _: FileStamp) -> tuple[Family, int]:
    """A large model's header takes tens of milliseconds, and models take turns."""
    return detect(path)


def _blamed(key: ModelKey, model: Model, read: Callable[[ModelKey], T]) -> T:
    """What `read` gives. A broken LoRA or ControlNet says nothing of the model."""
    try:
        return read(key)
    except (ModelBroken, ModelMissing) as error:
        if key.path in model.files.values():
            raise
        if key.kind == "lora":  # a client's
            raise GenerationFailed(str(error)) from error
        raise AuxiliaryBroken(key.path, str(error)) from error


def _stamp(key: ModelKey) -> FileStamp:
    return FileStamp.of(key.path)
