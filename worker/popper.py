"""Asking the horde for work: how often, and what each of its answers means for the worker."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from worker import refusals
from worker.backoff import Backoff
from worker.delivery import Delivery
from worker.errors import HordeOnHold, HordeRefused, HordeUnreachable, NotAllowed, UnusableJob
from worker.fault_guard import FaultGuard
from worker.horde_client import HordeClient
from worker.wire import Account, HordeMessage, Job, NothingToDo, Offer, WorkerRecord, printable

log = logging.getLogger(__name__)

FAULT_SECONDS = 60.0  # for telling the horde of a job that could not be read


class Popper:
    """Pops one job a call, and waits where the horde has none or can't be reached.

    Args:
        offer: what the worker takes, asked at each pop, since a model may drop out.
        guard: says when too many jobs have failed to ask for more.
        idle: seconds between pops that bring nothing, from the first to the longest.
        first_contact_seconds: a horde never reached for so long is taken for a wrong address.
    """

    def __init__(
        self,
        horde: HordeClient,
        offer: Callable[[], Offer],
        stopping: threading.Event,
        *,
        guard: FaultGuard,
        idle: tuple[float, float],
        first_contact_seconds: float,
    ):
        self._horde = horde
        self._offer = offer
        self._stopping = stopping
        self._guard = guard
        self._idle = Backoff(*idle)
        self._trouble = Backoff(1, 60)
        self._give_up_at = time.monotonic() + first_contact_seconds
        self._reached = False
        self._told = Told()

    def introduce(self) -> None:
        """Reach the horde, and see that it knows the api key and that the name is not taken.

        Before anything is started for it. Raises NotAllowed, and HordeUnreachable as `pop` does.
        """
        while not self._reached and not self._stopping.is_set():
            try:
                account = self._horde.whoami()
                record = self._horde.worker_by_name(self._offer().name)
            except HordeRefused as error:
                told = f"{self._horde.url} answers, but not as a horde does ({error})"
                raise HordeUnreachable(f"{told}: check horde_url") from error
            except HordeUnreachable as error:
                self._when_unreachable(error)
            else:
                insist_on_own_name(account, record)
                log.info("serving for %s at %s", account.username, self._horde.url)
                self._reached = True

    def pop(self) -> Job | None:
        """A job, or None when there was none; it has waited then, unless the worker is stopping.

        Raises NotAllowed when the horde won't have this worker, and HordeUnreachable when it was
        never reached since the start.
        """
        if (seconds := self._guard.wait_seconds()) > 0:
            self._told.state(
                f"too many jobs failed within the last hour: asking for no more for"
                f" {seconds / 60:.0f} minutes, before the horde sets this worker to maintenance"
            )
            self._stopping.wait(seconds)
            return None
        try:
            return self._when_answered(self._horde.pop(self._offer()))
        except HordeUnreachable as error:
            self._when_unreachable(error)
        except HordeOnHold as error:
            self._told.state(f"on hold: {error}. Remedy: {error.remedy}")
            self._stopping.wait(error.retry_after_seconds)
        except HordeRefused as error:
            self._told.state(f"pop refused: {error}")
            self._stopping.wait(self._trouble.delay())
        except UnusableJob as error:
            log.warning("faulting %d ids of an unreadable job: %s", len(error.ids), error)
            soon = time.monotonic() + FAULT_SECONDS
            Delivery(self._horde, self._stopping).fault(error.ids, str(error), soon)
            self._guard.count(len(error.ids))
        return None

    def _when_answered(self, popped: Job | NothingToDo) -> Job | None:
        self._reached = True
        self._trouble.reset()
        self._told.messages(popped.messages)
        if isinstance(popped, Job):
            self._told.state("")
            self._idle.reset()
            return popped
        causes = [f"{cause} {count}" for cause, count in popped.skipped.items() if count]
        told = ", ".join(causes)
        self._told.state(f"no job fits this worker; skipped requests: {told}" if told else "")
        self._stopping.wait(self._idle.delay())
        return None

    def _when_unreachable(self, error: HordeUnreachable) -> None:
        delay = self._trouble.delay(error.retry_after_seconds)
        if not self._reached:
            seconds_left = self._give_up_at - time.monotonic()
            if seconds_left <= 0:
                told = f"the horde at {self._horde.url} can't be reached ({error})"
                raise HordeUnreachable(f"{told}: check horde_url") from error
            delay = min(delay, seconds_left)
        self._told.state(f"{self._horde.url} can't be reached, trying again and again: {error}")
        self._stopping.wait(delay)


def insist_on_own_name(account: Account, record: WorkerRecord | None) -> None:
    """Raises NotAllowed when the worker's name belongs to another account."""
    if record is not None and record.id not in account.worker_ids:
        rc = "WrongCredentials"
        raise NotAllowed(rc, f"the name {record.name!r} is taken", refusals.POP[rc].remedy)


class Told:
    """Tells the owner each thing once: what keeps jobs away, when that ends, and messages."""

    def __init__(self) -> None:
        self._state = ""
        self._messages: set[str] = set()

    def state(self, line: str) -> None:
        """Log a change of what keeps jobs away; "" is nothing."""
        if line and line != self._state:
            log.warning(line)
        elif self._state and not line:
            log.info("all is well again")
        self._state = line

    def messages(self, messages: tuple[HordeMessage, ...]) -> None:
        """Log what the horde's moderators write to this worker; they repeat it with each pop."""
        for message in messages:
            if message.id not in self._messages:
                self._messages.add(message.id)
                log.warning("message from the horde: %s", printable(message.message))
