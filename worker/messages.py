"""What the bridge and its child processes say to each other over their pipes.

All are frozen and hold plain data only, so that unpickling one never imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hordelib.engine import Generation
from hordelib.errors import JobError
from hordelib.images import Picture
from hordelib.model import Model
from hordelib.params import GenerationParams
from hordelib.safety import Verdict


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
    model: Model


@dataclass(frozen=True, slots=True)
class Stop:
    """Finish the job at work, then exit."""


# child → bridge


@dataclass(frozen=True, slots=True)
class Ready:
    """The child takes commands from now on. `what` names the engine's device, or the judges."""

    what: str


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
    """The child can't go on; it exits after this."""

    reason: str


# to the judge's child, and back


@dataclass(frozen=True, slots=True)
class JudgeSettings:
    """`models` holds the weights of horde_safety, which is used where `horde_safety` says so."""

    models: Path
    horde_safety: bool
    log_file: Path


@dataclass(frozen=True, slots=True)
class Asked:
    """One picture: `index` is its place among those of the job."""

    job_id: str
    index: int
    picture: Picture
    prompt: str


@dataclass(frozen=True, slots=True)
class Judged:
    job_id: str
    index: int
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Unjudged:
    """Nothing can be said about the picture; the judge is as good as before."""

    job_id: str
    index: int
    reason: str
