"""Upload and submit: how a picture reaches the horde, and how a fault is reported."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TypeVar

from worker.backoff import Backoff
from worker.clock import elapsed_seconds
from worker.errors import HordeRefused, HordeUnreachable, JobFate
from worker.horde.api import Slot, State, Submission
from worker.horde.client import HordeClient, OtherSubmission
from worker.jobs.results import GIVEN_BACK, Cleared, Failed, ImageEnd, JobStage, Solved
from worker.line.trouble import Trouble

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")
Write = Callable[[Solved | Failed], OtherSubmission]


class Untold(Exception):
    """The worker is in a hurry, and the horde does not know of this image's end yet."""


class Delivery:
    """Ends popped ids at the horde. Calls that may work later are repeated.

    That is until the horde has given the job up, and while `hurry` is not set: each call is then
    tried once, and `Untold` raised where it fails.
    """

    def __init__(self, horde: HordeClient, hurry: threading.Event):
        self._horde = horde
        self._hurry = hurry
        self._troubles = {
            what: Trouble(f"{what} failing", log, over=f"{what} works again")
            for what in ("upload", "submit")
        }

    def upload(self, image: Cleared) -> Cleared | Failed:
        """Put the picture where the horde wants it. One that can't be put there has failed."""
        slot = image.slot
        try:
            self._insist("upload", lambda: self._horde.upload(slot.upload_url, image.webp), slot)
        except (HordeUnreachable, HordeRefused) as error:
            return Failed(slot, f"not uploaded: {error}", image.seed)
        return image

    def submit(self, image: Cleared | Failed) -> ImageEnd:
        """Tell the horde that the picture is there, or that none will come: then it asks another
        worker."""
        match image:
            case Cleared(slot, seed, _, notes):
                return self._submit(Submission.ok(slot.id, seed, notes), slot)
            case Failed(slot, reason, seed):
                _tell_of_fault(f"job {slot.id}", reason)
                return self._submit(Submission.faulted(slot.id, seed), slot, reason)

    def submit_task(self, outcome: Solved | Failed, write: Write) -> ImageEnd:
        """Tell the horde what a task of another kind came to."""
        slot, submission = outcome.slot, write(outcome)
        call = lambda: self._horde.submit_task(submission)  # noqa: E731
        if isinstance(outcome, Failed):
            _tell_of_fault(slot.id, outcome.reason)
            return self._end(call, slot, reason=outcome.reason)

        def fault(why: str) -> ImageEnd:
            return self.submit_task(Failed(slot, why), write)

        return self._end(call, slot, fault=fault)

    def _submit(self, submission: Submission, slot: Slot, reason: str = "") -> ImageEnd:
        call = lambda: self._horde.submit(submission)  # noqa: E731
        if submission.state is State.FAULTED:
            return self._end(call, slot, reason=reason)
        seed = submission.seed
        return self._end(call, slot, fault=lambda why: self.submit(Failed(slot, why, seed)))

    def _end(
        self,
        call: Callable[[], float],
        slot: Slot,
        *,
        reason: str = "",
        fault: Callable[[str], ImageEnd] | None = None,
    ) -> ImageEnd:
        """`fault` ends what is no fault itself, where the horde does not take it.

        A fault that comes when the horde has given the job to another worker is kept back: the
        horde would have the same once more, and its client would pay twice.
        """
        is_fault = fault is None
        if is_fault and elapsed_seconds() > slot.over_at:
            return ImageEnd(JobStage.given_up, 0.0, reason, is_drop=True)
        stage = JobStage.faulted if is_fault else JobStage.submitted
        try:
            kudos = self._insist("submit", call, slot)
        except HordeRefused as error:
            if error.fate is JobFate.DELIVERED:  # an earlier try went through, its answer was lost
                return ImageEnd(JobStage.submitted, 0.0, reason)
            if error.fate is JobFate.OPEN and fault is not None:
                return fault(str(error))
            log.warning("job %s is over: %s", slot.id, error)
            given_up_by_time = error.rc == "AbortedGen"
            return ImageEnd(JobStage.given_up, 0.0, str(error), is_drop=given_up_by_time)
        except HordeUnreachable as error:
            log.error("job %s could not be submitted: %s", slot.id, error)
            return ImageEnd(JobStage.given_up, 0.0, str(error), is_drop=True)
        return ImageEnd(stage, kudos, reason, is_drop=is_fault)

    def _insist(self, what: str, call: Callable[[], Answer], slot: Slot) -> Answer:
        """Repeat a call while the horde can't be reached, and still waits for this image.

        Raises its last HordeUnreachable, or Untold in a hurry.
        """
        backoff, trouble = Backoff(1, 60), self._troubles[what]
        try:
            while True:
                try:
                    answer = call()
                    trouble.over(slot.id)
                    return answer
                except HordeUnreachable as error:
                    delay = backoff.delay(error.retry_after_seconds)
                    if elapsed_seconds() + delay > slot.over_at:
                        raise
                    if self._hurry.is_set():
                        raise Untold from error
                    trouble.failed(f"{what} failed and is tried again: {error}", slot.id)
                    self._hurry.wait(delay)
        finally:
            trouble.given_up(slot.id)


def _tell_of_fault(what: str, reason: str) -> None:
    """What is given back at the owner's own stop or pause is no failure."""
    if reason in GIVEN_BACK:
        log.info("%s is given back: %s", what, reason)
    else:
        log.warning("%s faulted: %s", what, reason)
