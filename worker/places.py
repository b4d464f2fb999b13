"""How far to pop ahead: by what the jobs in hand are expected to take."""

from __future__ import annotations

import threading


class Places:
    """A place for the job at work, and for those that wait. Any thread may call.

    `waiting` jobs may always wait. Where all that are in hand together take less than `seconds`,
    so that they would be done before others are there, up to `most` may; 0 waiting stays 0.
    """

    def __init__(self, waiting: int, seconds: float, most: int):
        self._always = waiting + 1
        self._most = max(most, self._always) if waiting else self._always
        self._seconds = seconds
        self._taken = 0
        self._expected: dict[str, float] = {}  # of jobs that were understood
        self._changed = threading.Condition()

    def take(self, timeout: float) -> bool:
        """A place for one more job, within `timeout` seconds; whether there was one."""
        with self._changed:
            has_room = self._changed.wait_for(self._has_room, timeout)
            self._taken += has_room
            return has_room

    def expect(self, job_id: str, seconds: float) -> None:
        """What the job will take."""
        with self._changed:
            self._expected[job_id] = seconds
            self._changed.notify_all()

    def free(self, job_id: str = "") -> None:
        """Give a place back: that of a job, or of one that there was none for."""
        with self._changed:
            self._taken -= 1
            self._expected.pop(job_id, None)
            self._changed.notify_all()

    def _has_room(self) -> bool:
        if self._taken < self._always:
            return True
        all_are_known = len(self._expected) == self._taken
        is_little = sum(self._expected.values()) < self._seconds
        return all_are_known and is_little and self._taken < self._most
