"""What a running graph shares with the engine that runs it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

# ComfyUI hands an object of the caller's to every node that declares this hidden input; it was made
# for PNG metadata and takes anything. So nodes need no globals, and two engines don't meet.
HIDDEN_INPUT = {"context": "EXTRA_PNGINFO"}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The parts of a Stable Diffusion checkpoint: ComfyUI's ModelPatcher, CLIP and VAE objects."""

    model: Any
    clip: Any
    vae: Any
    native_side: int  # pixels; the picture size that its family was trained on


@dataclass(slots=True)
class RunContext:
    """One run of one graph."""

    checkpoints: dict[str, Checkpoint]  # by the name in the graph; on loan for the time of the run
    on_step: Callable[[int, int], None]  # (steps done, steps in all)
    cancelled: threading.Event
    pixels: list[Any] = field(default_factory=list[Any])  # uint8 arrays (height, width, 3)
