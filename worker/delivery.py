"""Encode, upload, submit: how a job's pictures reach the horde, and how a fault is reported."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from hordelib.gen_metadata import GenMetadata
from hordelib.images import Picture
from worker.backoff import Backoff
from worker.board import ImageEnd, JobState
from worker.errors import HordeRefused, HordeUnreachable, JobFate
from worker.horde_client import HordeClient
from worker.wire import Job, State, Submission

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Image:
    """A picture that may leave, with all that its client should know."""

    picture: Picture
    notes: tuple[GenMetadata, ...]


@dataclass(frozen=True, slots=True)
class Withheld:
    """A picture that may not leave, since nobody could say that it may."""

    seed: int
    reason: str


class Delivery:
    """Ends popped jobs at the horde. Calls that may work later are repeated.

    That is until the horde has given the job up, and while `hurry` is not set: each call is then
    tried once.
    """

    def __init__(self, horde: HordeClient, hurry: threading.Event):
        self._horde = horde
        self._hurry = hurry

    def deliver(self, job: Job, images: Sequence[Image | Withheld]) -> list[ImageEnd]:
        """Upload and submit each image; one that can't be uploaded is reported as faulted.

        Where there are several, each says its place in the batch.
        """
        slots = zip(job.ids, job.upload_urls, images, strict=True)
        is_batch = len(images) > 1
        return [
            self._end_image(
                job_id, url, image, ([GenMetadata.batch_index(i)] if is_batch else []), job.over_at
            )
            for i, (job_id, url, image) in enumerate(slots)
        ]

    def _end_image(
        self,
        job_id: str,
        url: str,
        image: Image | Withheld,
        place: Sequence[GenMetadata],
        until: float,
    ) -> ImageEnd:
        match image:
            case Image(picture, notes):
                submission = Submission.ok(job_id, picture.seed, (*notes, *place))
                return self._deliver_image(submission, url, picture, until)
            case Withheld(seed, reason):
                log.warning("job %s: %s", job_id, reason)
                return self._submit(Submission.faulted(job_id, seed), until, reason)

    def fault(self, ids: Sequence[str], reason: str, until: float) -> list[ImageEnd]:
        """Tell the horde that these images won't come, so that it can ask another worker."""
        return [self._submit(Submission.faulted(job_id), until, reason) for job_id in ids]

    def _deliver_image(
        self, submission: Submission, url: str, picture: Picture, until: float
    ) -> ImageEnd:
        webp = picture.to_webp()
        try:
            self._insist("upload", lambda: self._horde.upload(url, webp), until)
        except (HordeUnreachable, HordeRefused) as error:
            log.warning("job %s: not uploaded: %s", submission.job_id, error)
            fault = Submission.faulted(submission.job_id, picture.seed)
            return self._submit(fault, until, f"not uploaded: {error}")
        return self._submit(submission, until)

    def _submit(self, submission: Submission, until: float, reason: str = "") -> ImageEnd:
        is_fault = submission.state is State.FAULTED
        state = JobState.faulted if is_fault else JobState.submitted
        try:
            kudos = self._insist("submit", lambda: self._horde.submit(submission), until)
        except HordeRefused as error:
            if error.fate is JobFate.DELIVERED:  # an earlier try went through, its answer was lost
                return ImageEnd(state, 0.0, reason, is_drop=is_fault)
            if error.fate is JobFate.OPEN and not is_fault:
                return self._submit(Submission.faulted(submission.job_id), until, str(error))
            log.warning("job %s is over: %s", submission.job_id, error)
            given_up_by_time = error.rc == "AbortedGen"
            return ImageEnd(JobState.given_up, 0.0, str(error), is_drop=given_up_by_time)
        except HordeUnreachable as error:
            log.error("job %s could not be submitted: %s", submission.job_id, error)
            return ImageEnd(JobState.given_up, 0.0, str(error), is_drop=True)
        return ImageEnd(state, kudos, reason, is_drop=is_fault)

    def _insist(self, what: str, call: Callable[[], Answer], until: float) -> Answer:
        """Repeat a call while the horde can't be reached. Raises its last HordeUnreachable."""
        backoff = Backoff(1, 60)
        while True:
            try:
                return call()
            except HordeUnreachable as error:
                delay = backoff.delay(error.retry_after_seconds)
                if self._hurry.is_set() or time.monotonic() + delay > until:
                    raise
                log.warning("%s failed, again in %.0f s: %s", what, delay, error)
                self._hurry.wait(delay)
