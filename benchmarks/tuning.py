"""What a configuration should say of a machine's speed and memory, from what jobs take on it.

A size is taken where a job of 30 steps is done in half of the time that the horde gives it, and
where memory has room for it; a batch where it saves time and keeps to the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from benchmarks.tune_owner import Owner, weights_bytes
from benchmarks.tune_trials import STEPS, limit_seconds, megapixelsteps
from hordelib.errors import OutOfMemory
from hordelib.memory_estimate import MemoryEstimate
from hordelib.memory_readings import main_memory
from hordelib.model import Model
from hordelib.model_size import size_of
from hordelib.params import GenerationParams
from worker.config_edit import Value
from worker.memory_fit import misfit, most_pixels

SIDES = (256, 512, 768, 1024, 1280, 1536, 2048)  # each a whole number of max_power
PIXELS = 64 * 64 * 8  # of one max_power
SHARE = 0.5  # of the horde's limit: before a job is begun, it waits for the one at work
LEAST_SPEED = 0.5  # megapixelsteps a second, under which the horde calls a worker slow
BATCHES = (2, 4, 8, 16)
LEAST_GAIN = 0.05  # of a picture's seconds, by a batch twice as large
CALLS = 2  # of the network until a job can begin: the pop, and a source or LoRA that it names
USUAL_CALL_SECONDS = 0.2
MOST_WAITING = 4
GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Proposal:
    """Of one key. `measured`: the seconds that it rests on, by what took them."""

    key: str
    now: Value
    proposed: Value
    reason: str
    measured: dict[str, float] = field(default_factory=dict[str, float])


@dataclass(frozen=True, slots=True)
class Trial:
    """Jobs of a size, with the model that takes longest for the time that the horde gives."""

    side: int
    model: Model
    seconds: float
    limit_seconds: int

    @property
    def is_in_time(self) -> bool:
        return self.seconds <= SHARE * self.limit_seconds

    def __str__(self) -> str:
        told = f"{self.side} x {self.side} with {STEPS} steps takes {self.seconds:.3g} s"
        return f"{told} of the {self.limit_seconds} s that the horde gives"


@dataclass(frozen=True, slots=True)
class Tuning:
    """`job_seconds(model, side, images)` raises OutOfMemory.

    `call_seconds` of one to the horde; None where it could not be asked.
    """

    owner: Owner
    job_seconds: Callable[[Model, int, int], float]
    call_seconds: float | None

    def proposals(self) -> Iterator[Proposal]:
        """Each as soon as it is known. Raises OutOfMemory where no size has room."""
        largest, power = self._largest_size()
        yield power
        usual = self._trial(min(largest.side, largest.model.family.native_side), [largest.model])
        yield self._batch(usual)
        yield self._queue(usual)
        if self.owner.file is not None:
            yield self._models()

    def _largest_size(self) -> tuple[Trial, Proposal]:
        """The trial of that size, too: of the smallest, where even that is not in time."""
        tried: list[Trial] = []
        why = "larger sizes were not tried"
        for side in SIDES:
            trial = self._trial_if_room(side) if tried else self._trial(side, self.owner.examples)
            if trial is None:
                why = f"memory has no room for {side} x {side}"
                break
            tried.append(trial)
            if not tried[-1].is_in_time:
                why = f"{tried[-1]}, over half of it"
                break
        in_time = [trial for trial in tried if trial.is_in_time]
        largest = in_time[-1] if in_time else tried[0]
        reason = "; ".join((*map(str, in_time[-1:]), why, *_slowness(largest)))
        measured = {f"{trial.side}_seconds": trial.seconds for trial in tried}
        power = largest.side**2 // PIXELS
        return largest, self._proposal("max_power", power, reason, measured)

    def _trial(self, side: int, models: Sequence[Model]) -> Trial:
        return max((self._try(side, model) for model in models), key=_late)

    def _trial_if_room(self, side: int) -> Trial | None:
        try:
            return self._trial(side, self.owner.examples) if self._has_room(side) else None
        except OutOfMemory:
            return None

    def _try(self, side: int, model: Model) -> Trial:
        slow = self.owner.config.extra_slow_worker
        limit = limit_seconds(side, model.family.name, extra_slow=slow)
        return Trial(side, model, self.job_seconds(model, side, 1), limit)

    def _has_room(self, side: int) -> bool:
        pixels = side * side
        return most_pixels(self.owner.models.values(), self.owner.memory, pixels) == pixels

    def _batch(self, usual: Trial) -> Proposal:
        """By doubling, for as long as each picture takes less."""
        seconds = {1: usual.seconds}
        best, why = 1, "larger batches were not tried"
        for images in BATCHES:
            trouble = self._batch_trouble(usual, images, seconds)
            if trouble:
                why = trouble
                break
            best = images
        each = (
            f"{best} at once: {seconds[best] / best:.3g} s a picture of {usual.side} x {usual.side}"
        )
        alone = f", {seconds[1]:.3g} s alone" if best > 1 else ""
        measured = {f"batch_{images}_seconds": taken for images, taken in seconds.items()}
        return self._proposal("max_batch", best, f"{each}{alone}; {why}", measured)

    def _batch_trouble(self, usual: Trial, images: int, seconds: dict[int, float]) -> str:
        """What speaks against so many; puts what they take into `seconds`."""
        try:
            if not self._has_batch_room(usual, images):
                return f"memory has no room for {images}"
            taken = seconds[images] = self.job_seconds(usual.model, usual.side, images)
        except OutOfMemory:
            return f"memory ran out with {images}"
        if taken > SHARE * usual.limit_seconds:
            return f"{images} would take {taken:.3g} s, over half of {usual.limit_seconds} s"
        gain = 1 - taken / 2 / seconds[images // 2]
        if gain < LEAST_GAIN:
            return f"{images} would take {taken / images:.3g} s a picture, {100 * gain:.0f} % less"
        return ""

    def _has_batch_room(self, usual: Trial, images: int) -> bool:
        memory, model = self.owner.memory, usual.model
        size = size_of(model, memory.value_bytes)
        estimate = MemoryEstimate(model.family, memory.value_bytes).for_vae(size.vae_bytes)
        batch = GenerationParams(prompt="", width=usual.side, height=usual.side, images=images)
        return size.largest_part_bytes + estimate.peak_bytes(batch) <= memory.usable_bytes

    def _queue(self, usual: Trial) -> Proposal:
        """So many jobs that the network is waited for by none, and each is in time itself."""
        call = self.call_seconds or USUAL_CALL_SECONDS
        wait = CALLS * call
        needed = min(MOST_WAITING, max(1, math.ceil(wait / usual.seconds)))
        in_time = max(0, int(usual.limit_seconds / usual.seconds) - 1)
        assumed = "" if self.call_seconds else " (assumed)"
        reason = f"{usual}, {CALLS} calls of the horde {wait:.2g} s{assumed}"
        if in_time < needed:
            reason += "; more would wait beyond their time"
        measured = {"job_seconds": usual.seconds, "call_seconds": call}
        return self._proposal("queue_size", min(needed, in_time), reason, measured)

    def _models(self) -> Proposal:
        """Without the names whose models could never run."""
        memory, names = self.owner.memory, self.owner.names
        found = {name: misfit(name, model, memory) for name, model in self.owner.models.items()}
        told = [each.told for each in found.values() if each]
        fitting = tuple(name for name in names if not found.get(name))
        total = sum(weights_bytes(model) for model in self.owner.models.values()) / GIB
        free = main_memory().free_bytes / GIB
        size = f"their files have {total:.1f} GiB, main memory {free:.1f} GiB free"
        kept = f"they fit into the memory that {memory.setting} leaves; {size}"
        if not self.owner.has_own_models:
            kept = "none of them is here yet: the demo model was measured in their place"
        return self._proposal("models_to_load", fitting or names, "; ".join(told) or kept)

    def _proposal(
        self, key: str, proposed: Value, reason: str, measured: dict[str, float] | None = None
    ) -> Proposal:
        return Proposal(key, self.owner.now(key), proposed, reason, measured or {})


def _late(trial: Trial) -> float:
    return trial.seconds / trial.limit_seconds


def _slowness(trial: Trial) -> Iterator[str]:
    speed = megapixelsteps(trial.side) / trial.seconds
    if speed < LEAST_SPEED:
        told = f"{speed:.2g} megapixelsteps a second are under {LEAST_SPEED}"
        yield f"{told}: no jobs of clients that refuse slow workers"
