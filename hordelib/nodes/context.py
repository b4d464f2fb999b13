"""What a running graph shares with the engine that runs it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from hordelib.gen_metadata import GenMetadata
from hordelib.images import Picture, SourceImage
from hordelib.model_cache import ModelKey

# ComfyUI hands an object of the caller's to every node that declares this hidden input; it was made
# for PNG metadata and takes anything. So nodes need no globals, and two engines don't meet.
HIDDEN_INPUT = {"context": "EXTRA_PNGINFO"}
# With the node's title, for nodes that have something to disclose.
HIDDEN_INPUTS = {**HIDDEN_INPUT, "title": "UNIQUE_ID"}


class NodeNotes:
    """What nodes have to disclose, by their titles.

    ComfyUI does not execute a node again whose inputs are the same as in the run before, so a
    node's notes stay until it is executed again; it then calls `put`, with or without notes.
    """

    def __init__(self) -> None:
        self._notes: dict[str, tuple[GenMetadata, ...]] = {}

    def put(self, title: str, *notes: GenMetadata) -> None:
        """Replace what the node of this title had to say."""
        self._notes[title] = notes

    def of(self, titles: Collection[str]) -> tuple[GenMetadata, ...]:
        """The notes of a graph's nodes, each once."""
        found = [note for title in titles for note in self._notes.get(title, ())]
        return tuple(dict.fromkeys(found))


def member_title(title: str, member: int) -> str:
    """Under which a node that works for several jobs puts its notes for one of them."""
    return f"{title} {member}"


@dataclass(frozen=True, slots=True)
class Wanted:
    """An image that a run is to give: number `index` of a job, made from `seed`."""

    job_id: str
    index: int
    seed: int


@dataclass(slots=True)
class BatchSizes:
    """How many images are sampled at once."""

    at_most: int = sys.maxsize  # more of them don't fit into the device's memory
    now: int = 0  # in the batch at work
    largest: int = 0  # in a batch that came to its end


@dataclass(slots=True)
class RunContext:
    """One run of one graph."""

    models: Mapping[ModelKey, Any]  # on loan for the time of the run
    images: Mapping[str, SourceImage]  # by the name in the graph
    notes: NodeNotes
    on_step: Callable[[int, int], None]  # (steps done, steps in all)
    cancelled: threading.Event
    wanted: tuple[Wanted, ...]  # in the order of the batch
    sizes: BatchSizes = field(default_factory=BatchSizes)
    tile_sides: Mapping[ModelKey, int] = field(default_factory=dict[ModelKey, int])  # of upscalers
    texts: tuple[str, ...] = ()  # that the graph will have encoded, so that one pass does it
    pictures: list[Picture] = field(default_factory=list[Picture])  # those of `wanted`, or none

    def tile_side(self, upscaler: Any, most: int) -> int:
        """How large its tiles may be, in pixels."""
        key = next(key for key, model in self.models.items() if model is upscaler)
        return self.tile_sides.get(key, most)

    def pictures_of(self, member: int) -> list[Picture]:
        """Those of one of the jobs that shared the run, counted from 0: each begins at index 0."""
        starts = [i for i, wanted in enumerate(self.wanted) if wanted.index == 0]
        return self.pictures[slice(*[*starts, None][member : member + 2])]
