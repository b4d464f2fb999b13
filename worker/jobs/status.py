"""What the worker has done and is doing, for those who look: the terminal and the demo."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

from hordelib.job.params import GenerationParams
from worker.jobs.results import ImageEnd, JobState
from worker.jobs.timeline import Timeline

KEPT_ROWS = 100  # rows of finished jobs; the totals count on


_ORDER = (JobState.submitted, JobState.faulted, JobState.given_up)


@dataclass(frozen=True, slots=True)
class JobRow:
    """One popped job as a line of the table."""

    job_id: str
    model: str
    images: int
    params: GenerationParams | None = None  # None: not read yet, or not readable
    state: JobState = JobState.waiting
    step: int = 0
    steps: int = 0
    seconds: float = 0.0  # on the device
    kudos: float = 0.0
    expected_seconds: float = 0.0  # on the device; 0: not known yet
    expected_kudos: float = 0.0  # an estimate
    reason: str = ""  # of a fault


class Kind(Enum):
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
    kind: Kind = Kind.none


@dataclass(frozen=True, slots=True)
class View:
    """A moment of the board."""

    rows: tuple[JobRow, ...]  # oldest first
    images_done: int
    images_failed: int
    kudos: float
    device_seconds: float
    lost_pops: int = 0  # calls that may have handed out jobs which never arrived
    doing: str = ""  # what keeps the worker from jobs; "" is nothing
    silent_seconds: float = 0.0  # of an engine that does not answer

    @property
    def waiting(self) -> int:
        return sum(row.state is JobState.waiting for row in self.rows)

    @property
    def running(self) -> JobRow | None:
        return next((row for row in self.rows if row.state is JobState.running), None)

    @property
    def seconds_per_image(self) -> float | None:
        return self.device_seconds / self.images_done if self.images_done else None


@dataclass
class Board:
    """Written by the bridge's threads, read by anybody."""

    timeline: Timeline = field(default_factory=Timeline)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _open: dict[str, JobRow] = field(default_factory=dict[str, JobRow])
    _over: deque[JobRow] = field(default_factory=lambda: deque[JobRow](maxlen=KEPT_ROWS))
    _images: int = 0
    _faulted: int = 0
    _kudos: float = 0.0
    _device_seconds: float = 0.0
    _lost_pops: int = 0
    obstacle: Obstacle = Obstacle()
    _silent_seconds: float = 0.0

    def add(self, row: JobRow) -> None:
        with self._lock:
            self._open[row.job_id] = row

    def understood(self, job_id: str, params: GenerationParams) -> None:
        self._change(job_id, params=params)

    def stepped(self, job_id: str, step: int, steps: int) -> None:
        self._change(job_id, step=step, steps=steps)

    def running(self, job_id: str) -> None:
        self._change(job_id, state=JobState.running)

    def expected(self, job_id: str, seconds: float, kudos: float) -> None:
        self._change(job_id, expected_seconds=seconds, expected_kudos=kudos)

    def generated(self, job_id: str, seconds: float) -> None:
        self._change(job_id, state=JobState.delivering, seconds=seconds)

    def lost_pop(self) -> None:
        with self._lock:
            self._lost_pops += 1

    def say(self, obstacle: Obstacle) -> None:
        """What keeps the worker from jobs now."""
        self.obstacle = obstacle

    def silent(self, seconds: float) -> None:
        """The engine has not said a word for so long; 0 when it has."""
        with self._lock:
            self._silent_seconds = seconds

    def over(self, job_id: str, ends: Sequence[ImageEnd]) -> None:
        """The job's end. A job of several images is submitted when any of them is.

        Without any, it is left to the next life of the worker.
        """
        with self._lock:
            row = self._open.pop(job_id, None)
            if row is None or not ends:
                return
            best = min(ends, key=lambda end: _ORDER.index(end.state))
            kudos = sum(end.kudos for end in ends)
            self._over.append(replace(row, state=best.state, kudos=kudos, reason=best.reason))
            self._images += sum(end.state is JobState.submitted for end in ends)
            self._faulted += sum(end.state is not JobState.submitted for end in ends)
            self._kudos += kudos
            self._device_seconds += row.seconds

    def view(self) -> View:
        with self._lock:
            return View(
                rows=(*self._over, *self._open.values()),
                images_done=self._images,
                images_failed=self._faulted,
                kudos=self._kudos,
                device_seconds=self._device_seconds,
                lost_pops=self._lost_pops,
                doing=self.obstacle.told,
                silent_seconds=self._silent_seconds,
            )

    def _change(self, job_id: str, **changes: object) -> None:
        """What is said of a job that is over comes too late to be shown."""
        with self._lock:
            if job_id in self._open:
                self._open[job_id] = replace(self._open[job_id], **changes)  # pyright: ignore[reportArgumentType]
