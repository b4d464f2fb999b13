"""What the seconds of a run were spent on, by the nodes of its graph.

On a card, what a node starts may still be at work when the next one begins: encoders and samplers
are told apart as far as ComfyUI waits for them, which it does at the latest before it decodes.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping

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
    "DreamerAnnotator": POST,
    "DreamerUpscale": POST,
    "DreamerFaceFixer": POST,
    "DreamerStripBackground": POST,
}


class Stopwatch:
    """Each moment from its making to `stop` belongs to one phase; at first it is OTHER."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter):
        self._clock = clock
        self._seconds: dict[str, float] = defaultdict(float)
        self._phase, self._since = OTHER, clock()

    def enter(self, phase: str) -> None:
        now = self._clock()
        self._seconds[self._phase] += now - self._since
        self._phase, self._since = phase, now

    def stop(self) -> dict[str, float]:
        """Seconds by phase."""
        self.enter(OTHER)
        return dict(self._seconds)
