"""What keeps the line from taking jobs and making pictures: a stop, or a pause."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from worker.jobs.journal import Journal
from worker.jobs.status import Obstacle, ObstacleKind
from worker.jobs.timeline import Phase
from worker.line.pausing import PauseKind, PauseReason


class Halt:
    """Any thread may look; whoever stops or pauses the line holds `changing`."""

    def __init__(self, journal: Journal):
        self._journal = journal
        self.stopping = threading.Event()
        """Take no more jobs."""
        self.hurry = threading.Event()
        """And don't wait for anything."""
        self.changing = threading.Lock()
        self.pause = PauseKind.none

    @property
    def is_at_once(self) -> bool:
        """Whether there is a pause that does not wait for jobs in hand."""
        return self.pause is PauseKind.at_once

    @property
    def frees_devices(self) -> bool:
        """Whether there is a pause in which no engine is to run once its jobs are done."""
        return self.pause >= PauseKind.finish

    def stop(self) -> None:
        if not self.stopping.is_set():
            self._journal.timeline.begin(Phase.STOPPING)
        self.stopping.set()

    def begin_pause(self, reasons: Sequence[PauseReason]) -> None:
        """The greatest kind of these says what becomes of the jobs in hand."""
        if not self.pause:
            self._journal.timeline.begin(Phase.PAUSED)
        self.pause = max(reason.kind for reason in reasons)
        told = "; ".join(each.told for each in reasons)
        self._journal.say(Obstacle(told, ObstacleKind.paused))

    def end_pause(self) -> None:
        if self.pause:
            self.pause = PauseKind.none
            self._journal.say(Obstacle())
            self._journal.timeline.end(Phase.PAUSED)
