"""Encode, upload, submit: how a job's pictures reach the horde, and how a fault is reported."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from hordelib.images import Picture
from worker.backoff import Backoff
from worker.board import ImageEnd, JobState
from worker.errors import HordeRefused, HordeUnreachable, JobFate
from worker.horde_client import HordeClient
from worker.wire import GenMetadata, Job, State, Submission

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")


class Delivery:
    """Ends popped jobs at the horde. Calls that may work later are repeated, until `hurry` is set.

    Args:
        hurry: set when the worker must exit soon; each call is then tried once.
        keep_trying_seconds: how long a call is repeated. The presigned upload addresses live for
            1800 s from the pop; past a job's ttl the horde may have given it to somebody else.
    """

    def __init__(
        self, horde: HordeClient, hurry: threading.Event, keep_trying_seconds: float = 900
    ):
        self._horde = horde
        self._hurry = hurry
        self._keep_trying_seconds = keep_trying_seconds

    def deliver(
        self, job: Job, pictures: Sequence[Picture], notes: Sequence[GenMetadata] = ()
    ) -> list[ImageEnd]:
        """Upload and submit each picture; one that can't be uploaded is reported as faulted.

        `notes` go with every picture, and its place in the batch where there are several.
        """
        slots = zip(job.ids, job.upload_urls, pictures, strict=True)
        is_batch = len(pictures) > 1
        return [
            self._deliver_image(
                job_id, url, picture, (*notes, *([GenMetadata.batch_index(i)] if is_batch else []))
            )
            for i, (job_id, url, picture) in enumerate(slots)
        ]

    def fault(self, ids: Sequence[str], reason: str) -> list[ImageEnd]:
        """Tell the horde that these images won't come, so that it can ask another worker."""
        return [self._submit(Submission.faulted(job_id), reason) for job_id in ids]

    def _deliver_image(
        self, job_id: str, url: str, picture: Picture, notes: tuple[GenMetadata, ...]
    ) -> ImageEnd:
        webp = picture.to_webp()
        try:
            self._insist("upload", lambda: self._horde.upload(url, webp))
        except (HordeUnreachable, HordeRefused) as error:
            log.warning("job %s: not uploaded: %s", job_id, error)
            return self._submit(Submission.faulted(job_id, picture.seed), f"not uploaded: {error}")
        return self._submit(Submission.ok(job_id, picture.seed, notes))

    def _submit(self, submission: Submission, reason: str = "") -> ImageEnd:
        state = JobState.submitted if submission.state is State.OK else JobState.faulted
        try:
            kudos = self._insist("submit", lambda: self._horde.submit(submission))
        except HordeRefused as error:
            if error.fate is JobFate.DELIVERED:  # an earlier try went through, its answer was lost
                return ImageEnd(state, 0.0, reason)
            if error.fate is JobFate.OPEN and state is JobState.submitted:
                return self._submit(Submission.faulted(submission.job_id), str(error))
            log.warning("job %s is over: %s", submission.job_id, error)
            return ImageEnd(JobState.given_up, 0.0, str(error))
        except HordeUnreachable as error:
            log.error("job %s could not be submitted: %s", submission.job_id, error)
            return ImageEnd(JobState.given_up, 0.0, str(error))
        return ImageEnd(state, kudos, reason)

    def _insist(self, what: str, call: Callable[[], Answer]) -> Answer:
        """Repeat a call while the horde can't be reached. Raises its last HordeUnreachable."""
        backoff = Backoff(1, 60)
        end = time.monotonic() + self._keep_trying_seconds
        while True:
            try:
                return call()
            except HordeUnreachable as error:
                delay = backoff.delay(error.retry_after_seconds)
                if self._hurry.is_set() or time.monotonic() + delay > end:
                    raise
                log.warning("%s failed, again in %.0f s: %s", what, delay, error)
                self._hurry.wait(delay)
