"""What a running graph shares with the engine that runs it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hordelib.files.model_key import ModelKey
from hordelib.job.images import Picture, SourceImage
from hordelib.job.notes import GenMetadata
from hordelib.memory.estimates import BatchSizes

# ComfyUI hands an object of the caller's to every node that declares this hidden input; it was made
# for PNG metadata and takes anything. So nodes need no globals, and two engines don't meet.
HIDDEN_INPUT = {"context": "EXTRA_PNGINFO"}
NOTES = "notes"  # in what ComfyUI takes for a node's output to its web pages


@dataclass(frozen=True, slots=True)
class NodeNotes:
    """What one node has to disclose about its result."""

    to_all: Sequence[GenMetadata] = ()  # to every job that shares the run
    to_each: Sequence[Sequence[GenMetadata]] = ()  # to each of them, in their order

    def to(self, member: int) -> Sequence[GenMetadata]:
        """What one of the jobs is told."""
        return [*self.to_all, *(self.to_each[member] if self.to_each else ())]


def with_notes(result: tuple[Any, ...], notes: NodeNotes) -> dict[str, Any]:
    """What a node returns that has something to disclose.

    ComfyUI does not execute a node again whose inputs, and those of all nodes before it, are the
    same as in the run before. It keeps the notes in the same entry as the result, so that a run
    gets them with the result that they are about, or not at all.
    """
    return {"ui": {NOTES: [notes]}, "result": result}


@dataclass(frozen=True, slots=True)
class Wanted:
    """An image that a run is to give: number `index` of a job, made from `seed`."""

    job_id: str
    index: int
    seed: int


@dataclass(slots=True)
class RunContext:
    """One run of one graph."""

    models: Mapping[ModelKey, Any]  # on loan for the time of the run
    images: Mapping[str, SourceImage]  # by the name in the graph
    on_step: Callable[[int, int], None]  # (steps done, steps in all)
    cancelled: threading.Event
    wanted: tuple[Wanted, ...]  # in the order of the batch
    sizes: BatchSizes = field(default_factory=BatchSizes)
    tile_sides: Mapping[ModelKey, int] = field(default_factory=dict[ModelKey, int])  # of upscalers
    texts: tuple[str, ...] = ()  # that the graph will have encoded, so that one pass does it
    pictures: list[Picture] = field(default_factory=list[Picture])  # those of `wanted`, or none
    answers: list[Any] = field(default_factory=list[Any])  # about those, or instead of them

    def tile_side(self, upscaler: Any, most: int) -> int:
        """How large its tiles may be, in pixels."""
        key = next(key for key, model in self.models.items() if model is upscaler)
        return self.tile_sides.get(key, most)

    def of_member(self, member: int) -> slice:
        """The place in `wanted` of one of the jobs that shared the run, counted from 0."""
        starts = [i for i, wanted in enumerate(self.wanted) if wanted.index == 0]
        return slice(*[*starts, len(self.wanted)][member : member + 2])
