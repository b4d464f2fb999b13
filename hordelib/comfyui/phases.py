"""What the seconds of a run were spent on, by the nodes of its graph.

On a card, what a node starts may still be at work when the next one begins. The card's own clock
tells then how long it was at each node's work; what the CPU does meanwhile costs nothing.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping
from itertools import pairwise
from typing import Generic, Protocol, TypeVar

TEXT, SAMPLING, ENCODING, DECODING, POST, OTHER = (
    "text",
    "sampling",
    "encoding",
    "decoding",
    "post",
    "other",
)
PHASES: Mapping[str, str] = {
    "DreamerText": TEXT,
    "DreamerPrompts": TEXT,
    "DreamerSampler": SAMPLING,
    "DreamerSamplerAdvanced": SAMPLING,
    "VAEEncode": ENCODING,
    "InpaintModelConditioning": ENCODING,
    "InstructPixToPixConditioning": ENCODING,
    "VAEDecode": DECODING,
    "DreamerTransparentDecode": DECODING,
    "DreamerAnnotator": POST,
    "DreamerUpscale": POST,
    "DreamerFaceFixer": POST,
    "DreamerStripBackground": POST,
    "DreamerAestheticScore": POST,
    "DreamerCaption": POST,
    "DreamerClipAnswer": POST,
}


Mark = TypeVar("Mark")


class Clock(Protocol[Mark]):
    """What time a device is at."""

    def mark(self) -> Mark:
        """Now, or when the device gets to it."""
        ...

    def seconds(self, since: Mark, until: Mark) -> float: ...


class HostClock:
    """Of a device that has done what it was told by the time that the call returns."""

    def mark(self) -> float:
        return time.perf_counter()

    def seconds(self, since: float, until: float) -> float:
        return until - since


class Stopwatch(Generic[Mark]):
    """Each moment from its making to `stop` belongs to one phase; at first it is OTHER."""

    def __init__(self, clock: Clock[Mark]):
        self._clock = clock
        self._marks = [(OTHER, clock.mark())]

    def enter(self, phase: str) -> None:
        self._marks.append((phase, self._clock.mark()))

    def stop(self) -> dict[str, float]:
        """Seconds by phase."""
        self.enter(OTHER)
        seconds: dict[str, float] = defaultdict(float)
        for (phase, since), (_, until) in pairwise(self._marks):
            seconds[phase] += self._clock.seconds(since, until)
        return dict(seconds)
