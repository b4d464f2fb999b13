"""What a configuration should say of a machine's speed and memory, from what jobs take on it.

A size is taken where a job of 30 steps is done in half of the time that the horde gives it, and
where memory has room for it; a batch where it saves time and keeps to the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from benchmarks.tuning.tune_owner import Owner, weights_bytes
from benchmarks.tuning.tune_trials import STEPS, limit_seconds, megapixelsteps
from hordelib.errors import OutOfMemory
from hordelib.files.model import Model
from hordelib.job.params import GenerationParams
from hordelib.memory.readings import main_memory
from worker.config.editing import Value
from worker.models.memory_fit import misfit, most_pixels

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
Alone = tuple[str, int]  # a model's name, and the side of a picture


@dataclass(frozen=True, slots=True)
class Proposal:
    """Of one key. `measured`: the seconds that it rests on, by what took them.

    `is_of_demo`: the demo model's, in place of the owner's, none of which is here.
    """

    key: str
    now: Value
    proposed: Value
    reason: str
    measured: dict[str, float] = field(default_factory=dict[str, float])
    is_of_demo: bool = False


@dataclass(frozen=True, slots=True)
class HordeCall:
    """What one takes. `assumed`: why it was not measured, "" where it was."""

    seconds: float = USUAL_CALL_SECONDS
    assumed: str = ""


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
        return f"{told}; the horde gives {self.limit_seconds} s"


@dataclass(frozen=True, slots=True)
class Tuning:
    """`job_seconds(model, side, images)` raises OutOfMemory. No picture is measured alone twice."""

    owner: Owner
    job_seconds: Callable[[Model, int, int], float]
    call: HordeCall
    _alone: dict[Alone, float] = field(default_factory=dict[Alone, float], init=False)

    def proposals(self) -> Iterator[Proposal]:
        """Each as soon as it is known. Raises OutOfMemory where no size has room.

        Interrupted by the keyboard, it still gives the largest size of those that were tried.
        """
        tried: list[Trial] = []
        try:
            why = self._try_sizes(tried)
        except KeyboardInterrupt:
            if tried:
                yield self._power(tried, "interrupted before larger sizes were tried")
            raise
        yield self._power(tried, why)
        largest = _largest(tried)
        usual = self._trial(min(largest.side, largest.model.family.native_side), [largest.model])
        yield self._queue(usual)
        yield self._batch(usual)

    def _try_sizes(self, tried: list[Trial]) -> str:
        """Fills `tried`, and says why no larger one is in it."""
        for side in SIDES:
            trial = self._trial_if_room(side) if tried else self._trial(side, self.owner.examples)
            if trial is None:
                return f"memory has no room for {side} x {side}"
            tried.append(trial)
            if not trial.is_in_time:
                return f"{trial}, and half of that is to be left for all else"
        return "larger sizes were not tried"

    def _power(self, tried: Sequence[Trial], why: str) -> Proposal:
        largest = _largest(tried)
        told = [str(largest)] if largest.is_in_time else []
        reason = "; ".join((*told, why, *_slowness(largest)))
        measured = {f"{trial.side}_seconds": trial.seconds for trial in tried}
        return self._proposal("max_power", largest.side**2 // PIXELS, reason, measured)

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
        if (model.name, side) not in self._alone:
            self._alone[model.name, side] = self.job_seconds(model, side, 1)
        return Trial(side, model, self._alone[model.name, side], limit)

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
        size = f"{usual.side} x {usual.side}"
        told = f"one picture of {size} takes {seconds[1]:.3g} s alone"
        if best > 1:
            told += f", {seconds[best] / best:.3g} s as one of {best}"
        measured = {f"batch_{images}_seconds": taken for images, taken in seconds.items()}
        return self._proposal("max_batch", best, f"{told}; {why}", measured)

    def _batch_trouble(self, usual: Trial, images: int, seconds: dict[int, float]) -> str:
        """What speaks against so many; puts what they take into `seconds`."""
        try:
            if not self._has_batch_room(usual, images):
                return f"memory has no room for {images}"
            taken = seconds[images] = self.job_seconds(usual.model, usual.side, images)
        except OutOfMemory:
            return f"memory ran out with {images}"
        fewer = images // 2
        if taken < seconds[fewer]:  # impossible: something else had the machine before
            again = self.job_seconds(usual.model, usual.side, fewer)
            seconds[fewer] = min(seconds[fewer], again)
        if taken > SHARE * usual.limit_seconds:
            most = SHARE * usual.limit_seconds
            return f"{images} would take {taken:.3g} s; half of the horde's limit is {most:.3g} s"
        gain = 1 - taken / 2 / seconds[fewer]
        if gain < LEAST_GAIN:
            change = f"{abs(100 * gain):.0f} % {'less' if gain > 0 else 'more'}"
            return f"as one of {images} it takes {taken / images:.3g} s, {change}"
        return ""

    def _has_batch_room(self, usual: Trial, images: int) -> bool:
        memory, model = self.owner.memory, usual.model
        size = memory.size_of(model)
        estimate = memory.estimate(model.family, size.vae_bytes)
        batch = GenerationParams(prompt="", width=usual.side, height=usual.side, images=images)
        return size.largest_part_bytes + estimate.peak_bytes(batch) <= memory.usable_bytes

    def _queue(self, usual: Trial) -> Proposal:
        """So many jobs that the network is waited for by none, and each is in time itself."""
        wait = CALLS * self.call.seconds
        needed = min(MOST_WAITING, max(1, math.ceil(wait / usual.seconds)))
        in_time = max(0, int(usual.limit_seconds / usual.seconds) - 1)
        reason = f"{usual}, {CALLS} calls of the horde {wait:.2g} s"
        if self.call.assumed:
            reason += f" (assumed: {self.call.assumed})"
        if in_time < needed:
            reason += "; more would wait beyond their time"
        measured = {"job_seconds": usual.seconds, "call_seconds": self.call.seconds}
        return self._proposal("queue_size", min(needed, in_time), reason, measured)

    def _proposal(
        self, key: str, proposed: Value, reason: str, measured: dict[str, float]
    ) -> Proposal:
        is_of_demo = not self.owner.has_own_models
        return Proposal(key, self.owner.now(key), proposed, reason, measured, is_of_demo)


def models_proposal(owner: Owner) -> Proposal:
    """Without the names whose models could never run. Nothing is measured for it."""
    found = {name: misfit(name, model, owner.memory) for name, model in owner.models.items()}
    fitting = tuple(name for name in owner.names if not found.get(name))
    told = [_told(owner, name, each.told) for name, each in found.items() if each]
    if owner.models and not told:
        told.append(_fit(owner))
    if owner.missing:
        told.append(f"not counted: {owner.told_missing}")
    key = "models_to_load"
    return Proposal(key, owner.now(key), fitting or owner.names, "; ".join(told))


def _told(owner: Owner, name: str, misfit: str) -> str:
    if name in owner.names:
        return misfit
    return f"{misfit}; a group or another key names it, so models_to_skip takes it out"


def _fit(owner: Owner) -> str:
    total = sum(weights_bytes(model) for model in owner.models.values()) / GIB
    free = main_memory().free_bytes / GIB
    size = f"{total:.1f} GiB of files, {free:.1f} GiB of main memory free"
    here = "the model that is here fits" if len(owner.models) == 1 else "all that are here fit"
    return f"{here} into the memory that {owner.memory.setting} leaves; {size}"


def _largest(tried: Sequence[Trial]) -> Trial:
    """That is in time; the first, where none is."""
    return next((trial for trial in reversed(tried) if trial.is_in_time), tried[0])


def _late(trial: Trial) -> float:
    return trial.seconds / trial.limit_seconds


def _slowness(trial: Trial) -> Iterator[str]:
    speed = megapixelsteps(trial.side) / trial.seconds
    if speed < LEAST_SPEED:
        told = f"{speed:.2g} megapixelsteps a second are under {LEAST_SPEED}"
        yield f"{told}: no jobs of clients that refuse slow workers"
