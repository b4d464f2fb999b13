"""Asking the horde for work: how often, and what each of its answers means for the worker."""

from __future__ import annotations

import logging
import threading
import time

from worker.backoff import Backoff
from worker.delivery import Delivery
from worker.errors import HordeOnHold, HordeRefused, HordeUnreachable, UnusableJob
from worker.horde_client import HordeClient
from worker.wire import Job, NothingToDo, Offer

log = logging.getLogger(__name__)


class Popper:
    """Pops one job a call, and waits where the horde has none or can't be reached.

    Args:
        idle: seconds between pops that bring nothing, from the first to the longest.
        first_contact_seconds: a horde never reached for so long is taken for a wrong address.
    """

    def __init__(
        self,
        horde: HordeClient,
        offer: Offer,
        stopping: threading.Event,
        *,
        idle: tuple[float, float],
        first_contact_seconds: float,
    ):
        self._horde = horde
        self._offer = offer
        self._stopping = stopping
        self._idle = Backoff(*idle)
        self._trouble = Backoff(1, 60)
        self._first_contact_seconds = first_contact_seconds
        self._started = time.monotonic()
        self._reached = False
        self._last_skipped: dict[str, int] = {}

    def introduce(self) -> None:
        """Reach the horde and have it know the api key, before anything is started for it.

        Raises NotAllowed for a key that nobody has, and HordeUnreachable as `pop` does.
        """
        while not self._reached and not self._stopping.is_set():
            try:
                account = self._horde.whoami()
            except HordeUnreachable as error:
                self._when_unreachable(error)
            else:
                log.info("serving for %s at %s", account.username, self._horde.url)
                self._reached = True

    def pop(self) -> Job | None:
        """A job, or None when there was none; it has waited then, unless the worker is stopping.

        Raises NotAllowed when the horde won't have this worker, and HordeUnreachable when it was
        never reached since the start.
        """
        try:
            popped = self._horde.pop(self._offer)
        except HordeUnreachable as error:
            self._when_unreachable(error)
        except HordeOnHold as error:
            log.warning("on hold: %s. %s", error, error.remedy)
            self._wait(error.retry_after_seconds)
        except HordeRefused as error:
            log.warning("pop refused: %s", error)
            self._wait(self._trouble.delay())
        except UnusableJob as error:
            log.warning("faulting %d ids of an unreadable job: %s", len(error.ids), error)
            Delivery(self._horde, self._stopping).fault(error.ids, str(error))
        else:
            return self._when_answered(popped)
        return None

    def _when_answered(self, popped: Job | NothingToDo) -> Job | None:
        self._reached = True
        self._trouble.reset()
        if isinstance(popped, Job):
            self._idle.reset()
            return popped
        self._tell_skipped(dict(popped.skipped))
        self._wait(self._idle.delay())
        return None

    def _tell_skipped(self, skipped: dict[str, int]) -> None:
        """Why there was nothing, once per change: the owner can do something about some of it."""
        causes = {cause: count for cause, count in skipped.items() if count}
        if causes and causes != self._last_skipped:
            told = ", ".join(f"{cause} {count}" for cause, count in causes.items())
            log.info("no job for this worker; skipped requests: %s", told)
        self._last_skipped = causes

    def _when_unreachable(self, error: HordeUnreachable) -> None:
        delay = self._trouble.delay(error.retry_after_seconds)
        if not self._reached:
            seconds_left = self._started + self._first_contact_seconds - time.monotonic()
            if seconds_left <= 0:
                raise error
            delay = min(delay, seconds_left)
        log.warning("the horde can't be reached, again in %.0f s: %s", delay, error)
        self._wait(delay)

    def _wait(self, seconds: float) -> None:
        self._stopping.wait(seconds)
