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
        self._is_held = False
        self._is_closed = False
        self._changed = threading.Condition()

    def take(self, timeout: float | None = None) -> bool:
        """Wait for a place for one more job; False where there was none in time, or will be."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or self._has_room(), timeout)
            is_taken = not self._is_closed and self._has_room()
            self._taken += is_taken
            return is_taken

    def take_anyway(self) -> None:
        """For a job that is in hand already, whatever room there is."""
        with self._changed:
            self._taken += 1

    def hold(self) -> None:
        """No more places, until `resume`."""
        self._set_held(True)

    def resume(self) -> None:
        self._set_held(False)

    def close(self) -> None:
        """No more places, ever."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

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

    def _set_held(self, is_held: bool) -> None:
        with self._changed:
            self._is_held = is_held
            self._changed.notify_all()

    def _has_room(self) -> bool:
        if self._is_held:
            return False
        if self._taken < self._always:
            return True
        all_are_known = len(self._expected) == self._taken
        is_little = sum(self._expected.values()) < self._seconds
        return all_are_known and is_little and self._taken < self._most
