"""Requests that failed in the engine: the horde hands out again what was faulted."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import replace
from math import inf

from hordelib.errors import JobError
from worker.clock import elapsed_seconds
from worker.jobs.work import Work
from worker.models.changes import stamps_of

KEPT_FAILURES = 64
BELIEVED_SECONDS = 600.0  # the fault may have been this machine's, and be gone by then


class FailedRequests:
    """A request is known by all that its client sent, and by the model's files as they are.

    The threads of all devices ask here.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[int, tuple[float, str]] = OrderedDict()  # when and why

    def insist_on_new(self, work: Work) -> None:
        """Raises JobError for a request that has failed not long ago."""
        key = _key(work)
        with self._lock:
            failed_at, why = self._known.get(key, (-inf, ""))
        if elapsed_seconds() - failed_at < BELIEVED_SECONDS:
            raise JobError(f"{why}; it was the same request")

    def add(self, work: Work, error: JobError) -> None:
        key = _key(work)
        with self._lock:
            self._known.pop(key, None)  # the latest comes last
            self._known[key] = elapsed_seconds(), str(error)
            if len(self._known) > KEPT_FAILURES:
                self._known.popitem(last=False)


def _key(work: Work) -> int:
    files = tuple(stamps_of(work.model).items())
    return hash((work.job.model, files, replace(work.params, images=1)))
