"""What became of each image of a job, on its way from the engine to the horde.

    Made ──judge──> Cleared ──upload──> Cleared ──submit──> ImageEnd
       └────────────────┴─────────────> Failed  ──fault───> ImageEnd

Each carries its own slot, so that no picture is ever matched with an id again.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from hordelib.errors import EngineError, JobError
from hordelib.job.images import Picture
from hordelib.job.notes import GenMetadata
from worker.errors import WorkerError
from worker.horde.api import Job, Slot

log = logging.getLogger(__name__)

STOPPING = "the worker is stopping"  # why a job is given back at a stop
PAUSED = "the worker is paused"  # and at a pause that does not wait for it
GIVEN_BACK = (STOPPING, PAUSED)  # by the owner's will, which is no failure


@dataclass(frozen=True, slots=True)
class Made:
    """A finished picture that nobody has judged yet, as the file that would be uploaded."""

    slot: Slot
    seed: int
    webp: bytes
    prompt: str  # the negative one after `###`
    use_nsfw_censor: bool = False
    notes: tuple[GenMetadata, ...] = ()

    @property
    def picture(self) -> Picture:
        """Its pixels. Raises OSError where the file is damaged."""
        return Picture.of_file(self.webp, self.seed)


@dataclass(frozen=True, slots=True)
class Cleared:
    """A picture that may leave, or the card in its place, with all that its client should know."""

    slot: Slot
    seed: int
    webp: bytes
    notes: tuple[GenMetadata, ...] = ()


@dataclass(frozen=True, slots=True)
class Failed:
    """There will be no picture, or none that may leave."""

    slot: Slot
    reason: str
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Solved:
    """What a form or a text came to: JSON, or "R2" for a picture that was uploaded."""

    slot: Slot
    value: object


Result = Made | Failed


@dataclass(frozen=True, slots=True)
class Results:
    """All images of one job, in the order of its slots."""

    job_id: str
    images: tuple[Result, ...]


def failed(job: Job, reason: str) -> Results:
    """No image of this job will come."""
    return failed_slots(job.slots, reason)


def failed_slots(slots: Sequence[Slot], reason: str) -> Results:
    return Results(slots[0].id, tuple(Failed(slot, reason) for slot in slots))


def fault_reason(error: Exception) -> str:
    """Why a job is faulted. What is no JobError is a bug of ours: the log gets all of it."""
    if isinstance(error, JobError | EngineError | WorkerError):
        return str(error)
    log.error("a bug of ours failed a job", exc_info=error)
    return f"internal error: {type(error).__name__}: {error}"


class JobStage(StrEnum):
    """Where a job is, or one image of it; the last three are the ends of every popped id."""

    popped = "popped"
    reading = "reading"
    waiting = "waiting"
    running = "running"
    encoding = "encoding"
    judging = "judging"
    delivering = "delivering"
    submitted = "submitted"
    faulted = "faulted"
    given_up = "given up"  # for the horde's own reason: it has no use for the result any more


UNDELIVERED = (JobStage.judging, JobStage.delivering)
UNMADE = (JobStage.popped, JobStage.reading, JobStage.waiting, JobStage.running)
ENDS = (JobStage.submitted, JobStage.faulted, JobStage.given_up)  # the best first


@dataclass(frozen=True, slots=True)
class ImageEnd:
    """How one popped id ended: `stage` is one of ENDS."""

    stage: JobStage
    kudos: float = 0.0
    reason: str = ""
    is_drop: bool = False  # the horde holds it against the worker

    @property
    def is_failure(self) -> bool:
        """Whether there is no picture, and not because its owner has stopped or paused it."""
        return self.stage is not JobStage.submitted and self.reason not in GIVEN_BACK
