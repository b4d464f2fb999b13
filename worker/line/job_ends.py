"""Why the engine made no picture of a job, where that is not the engine's own error."""

from __future__ import annotations

from hordelib.errors import JobError
from worker.jobs.results import STOPPING


class TooLate(JobError):
    """The job can't be done before the horde gives it up, or before the worker stops."""


class Stopping(TooLate):
    """It could be done in time, but the worker stops before."""

    def __init__(self) -> None:
        super().__init__(STOPPING)


class KillsEngines(JobError):
    """The engine died of the job, and so did a second one."""
