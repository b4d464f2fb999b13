"""What the bridge and its engine child say to each other over the pipe.

All are frozen and hold plain data only, so that unpickling one never imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hordelib.engine import Generation
from hordelib.errors import JobError
from hordelib.params import GenerationParams


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """How the child sets its engine up; given when it is spawned."""

    comfyui: Path | None
    device: str
    ram_reserve_bytes: int
    vram_reserve_bytes: int | None
    log_file: Path


# bridge → child


@dataclass(frozen=True, slots=True)
class Generate:
    """`number` tells one call from the next, so that a late answer is never taken for another's."""

    number: int
    params: GenerationParams
    checkpoint: Path


@dataclass(frozen=True, slots=True)
class Stop:
    """Finish the job at work, then exit."""


# child → bridge


@dataclass(frozen=True, slots=True)
class Ready:
    device: str


@dataclass(frozen=True, slots=True)
class Alive:
    """Said every second from a thread of its own: the process is there and gets its turns."""


@dataclass(frozen=True, slots=True)
class Stepped:
    number: int
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Finished:
    number: int
    generation: Generation


@dataclass(frozen=True, slots=True)
class Failed:
    number: int
    error: JobError


@dataclass(frozen=True, slots=True)
class Broken:
    """The engine can't go on; the child exits after it."""

    reason: str


Command = Generate | Stop
Report = Ready | Alive | Stepped | Finished | Failed | Broken
