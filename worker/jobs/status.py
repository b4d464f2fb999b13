"""What the worker has done and is doing, for those who look: the terminal, the demo, a debugger."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from math import inf

from hordelib.job.params import GenerationParams
from worker.horde.api import HordeMessage, Slot
from worker.jobs.results import ENDS, Failed, ImageEnd, JobStage, Results

KEPT_ROWS = 100  # rows of finished jobs; the totals count on


@dataclass(frozen=True, slots=True)
class JobRow:
    """One popped job as a line of the journal."""

    job_id: str
    model: str
    slots: tuple[Slot, ...]
    left: frozenset[str]  # ids of its images that have not ended
    stage: JobStage = JobStage.popped
    params: GenerationParams | None = None  # None: not read yet, or not readable
    own_seconds: float = inf  # that it would take alone, on the device; infinite: not known
    expected_seconds: float = 0.0  # with those that share its batch; 0: not known yet
    expected_kudos: float = 0.0  # an estimate
    step: int = 0
    steps: int = 0
    seconds: float = 0.0  # on the device
    device: str = ""  # by its name, where there are several
    ends: tuple[ImageEnd, ...] = ()

    @property
    def kudos(self) -> float:
        return sum(end.kudos for end in self.ends)

    @property
    def reason(self) -> str:
        """Of a fault; "" for none."""
        return self.best_end.reason if self.best_end else ""

    @property
    def best_end(self) -> ImageEnd | None:
        """A job of several images is submitted when any of them is."""
        return min(self.ends, key=lambda end: ENDS.index(end.stage), default=None)

    def failed(self, reason: str) -> Results:
        """No image of this job will come."""
        return Results(self.job_id, tuple(Failed(slot, reason) for slot in self.slots))


class ObstacleKind(Enum):
    """Of what keeps the worker from jobs."""

    none = 0
    idle = 1  # the horde has none that fits
    paused = 2  # by its owner
    maintenance = 3  # the horde gives it its owner's own jobs alone
    trouble = 4


@dataclass(frozen=True, slots=True)
class Obstacle:
    """What keeps the worker from jobs, in one line for its owner."""

    told: str = ""
    kind: ObstacleKind = ObstacleKind.none


@dataclass(frozen=True, slots=True)
class StatusView:
    """A moment of the journal."""

    rows: tuple[JobRow, ...]  # oldest first
    images_done: int
    images_failed: int
    kudos: float
    device_seconds: float
    lost_pops: int = 0  # calls that may have handed out jobs which never arrived
    obstacle: Obstacle = Obstacle()  # what keeps the worker from jobs
    silent_seconds: float = 0.0  # of an engine that does not answer
    messages: tuple[HordeMessage, ...] = ()  # of the horde's moderators, while they hold

    def count(self, *stages: JobStage) -> int:
        """Jobs at any of these stages."""
        return sum(row.stage in stages for row in self.rows)

    @property
    def waiting(self) -> int:
        return self.count(JobStage.popped, JobStage.reading, JobStage.waiting)

    @property
    def running(self) -> JobRow | None:
        return next((row for row in self.rows if row.stage is JobStage.running), None)

    @property
    def seconds_per_image(self) -> float | None:
        return self.device_seconds / self.images_done if self.images_done else None


@dataclass
class Status:
    """What came of the jobs that are over, and how the worker is. The journal writes it, locked."""

    obstacle: Obstacle = Obstacle()
    silent_seconds: float = 0.0
    lost_pops: int = 0
    messages: tuple[HordeMessage, ...] = ()
    _over: deque[JobRow] = field(default_factory=lambda: deque[JobRow](maxlen=KEPT_ROWS))
    _images: int = 0
    _failed: int = 0
    _kudos: float = 0.0
    _device_seconds: float = 0.0

    def over(self, row: JobRow) -> None:
        """All of its images have ended."""
        done = sum(end.stage is JobStage.submitted for end in row.ends)
        self._over.append(row)
        self._images += done
        self._failed += sum(end.is_failure for end in row.ends)
        self._kudos += row.kudos
        self._device_seconds += row.seconds

    def view(self, in_hand: tuple[JobRow, ...]) -> StatusView:
        return StatusView(
            rows=(*self._over, *in_hand),
            images_done=self._images,
            images_failed=self._failed,
            kudos=self._kudos,
            device_seconds=self._device_seconds,
            lost_pops=self.lost_pops,
            obstacle=self.obstacle,
            silent_seconds=self.silent_seconds,
            messages=self.messages,
        )
