"""What the bridge and its child processes say to each other over their pipes.

All are frozen and hold plain data only, so that unpickling one never imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hordelib.engine import Generation
from hordelib.errors import DeviceFault, JobError
from hordelib.files.model import Model
from hordelib.files.model_key import ModelKey
from hordelib.job.batching import Member
from hordelib.job.images import MAX_WEBP_SIDE, Picture, SourceImage
from hordelib.safety.verdict import Verdict


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """How the child sets its engine up; given when it is spawned."""

    comfyui: Path | None
    device: str
    ram_reserve_bytes: int
    vram_reserve_bytes: int | None
    log_file: Path
    memory_file: Path | None = None  # keeps what is learnt of the memory that jobs take
    fast: tuple[str, ...] = ()  # of hordelib.comfyui.fast
    card: str = ""  # the only one that the child sees, by its UUID; "": as the environment has it


# bridge → child


@dataclass(frozen=True, slots=True)
class Generate:
    """`number` tells one call from the next, so that a late answer is never taken for another's.

    Jobs of one call share a batch. Each picture comes back with its job's id and its place in it.
    """

    number: int
    members: tuple[Member, ...]
    model: Model


@dataclass(frozen=True, slots=True)
class ReadAhead:
    """The next job will need these files: have them in memory, while another one is at work."""

    keys: tuple[ModelKey, ...]


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop the call of this number, whether it runs or is still to come. The child goes on."""

    number: int


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
    """Said where nothing else is, by a thread of its own: the process is there and gets turns."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """All files that the job needs are in memory."""

    number: int


@dataclass(frozen=True, slots=True)
class Stepped:
    """Said of the last step of a pass, and of the others about once a second at most."""

    number: int
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Drawn:
    """A finished picture. They come job by job in their order, when all of them are made."""

    number: int
    picture: Picture


@dataclass(frozen=True, slots=True)
class Finished:
    """The pictures have been told; `generations` have the rest of each job, and no images."""

    number: int
    generations: tuple[Generation, ...]


@dataclass(frozen=True, slots=True)
class Failed:
    number: int
    error: JobError


@dataclass(frozen=True, slots=True)
class Broken:
    """The child can't go on; it exits after this.

    `error` is what stopped it, where the kind of it matters to the bridge.
    """

    reason: str
    error: DeviceFault | None = None


# to the judge's child, and back


@dataclass(frozen=True, slots=True)
class JudgeSettings:
    """`models` holds the weights of horde_safety, which is used where `horde_safety` says so."""

    models: Path
    horde_safety: bool
    log_file: Path


@dataclass(frozen=True, slots=True)
class Asked:
    """One picture, as the file that would be uploaded: `index` is its place among the job's."""

    job_id: str
    index: int
    webp: bytes
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


# to the child that does forms, and back


@dataclass(frozen=True, slots=True)
class FormsSettings:
    log_file: Path


@dataclass(frozen=True, slots=True)
class Solve:
    """`number` tells one call from the next, as in Generate."""

    number: int
    form: str
    image: SourceImage


@dataclass(frozen=True, slots=True)
class Answered:
    """`result` is what JSON can hold."""

    number: int
    result: Any


@dataclass(frozen=True, slots=True)
class Unanswered:
    number: int
    reason: str


EngineReport = Loaded | Stepped | Drawn | Finished | Failed
Report = Ready | Alive | EngineReport | Broken | Judged | Unjudged | Answered | Unanswered

# The longest report has one picture, and one that no WebP file can hold could not be delivered.
MOST_REPORT_BYTES = 4 * MAX_WEBP_SIDE**2 + (1 << 20)
