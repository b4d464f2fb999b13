"""Asking the horde for work: how often, and what each of its answers means for the worker."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from worker.backoff import Backoff
from worker.clock import elapsed_seconds
from worker.errors import HordeOnHold, HordeRefused, HordeUnreachable, NotAllowed, UnusableJob
from worker.horde import refusals
from worker.horde.accounts import Account, WorkerRecord
from worker.horde.api import HordeMessage, Job, NothingToDo, Offer
from worker.horde.client import HordeClient
from worker.horde.kinds import Kind
from worker.jobs.journal import Journal
from worker.jobs.status import Obstacle, ObstacleKind
from worker.jobs.timeline import Phase
from worker.line.limits import Limits
from worker.line.trouble import Trouble, duration, without_numbers
from worker.line.vocabulary import Vocabulary

log = logging.getLogger(__name__)

TROUBLE_SECONDS = (1.0, 60.0)  # between two tries to reach the horde: the first, the longest
MOST_MESSAGES = 1000  # that are known to have been told; then all are forgotten
IDLE_SECONDS = 600.0  # without a job, until that is logged; then after twice as long, and so on
LOOK_SECONDS = 1.0  # while nothing may be asked for, between two looks whether that has changed


class Popper:
    """Pops one job a call, and waits where the horde has none or can't be reached.

    Args:
        offer: what the worker takes, asked at each pop, since a model may drop out.
        journal: says how many images may be asked for; is told of answers that were lost, and why
            there are no jobs.
    """

    def __init__(
        self,
        horde: HordeClient,
        offer: Callable[[], Offer],
        stopping: threading.Event,
        *,
        journal: Journal,
        limits: Limits,
    ):
        self._horde = horde
        self._offer = offer
        self._stopping = stopping
        self._journal = journal
        self._pops = limits.pictures
        self._idle = Backoff(*limits.idle_seconds)
        self._trouble = Backoff(*TROUBLE_SECONDS)
        self._give_up_at = elapsed_seconds() + limits.first_contact_seconds
        self._reached = False
        self._was_answered = False  # the last time
        self._told = Told(journal)

    def introduce(self) -> None:
        """Reach the horde, and see that it knows the api key and that the name is not taken.

        Before anything is started for it. Raises NotAllowed, and HordeUnreachable as `pop` does.
        """
        while not self._reached and not self._stopping.is_set():
            try:
                account = self._horde.whoami()
                record = None
                if self._pops:
                    record = self._horde.worker_by_name(self._offer().name, account)
            except HordeRefused as error:
                told = f"{self._horde.url} answers, but not as a horde does ({error})"
                raise HordeUnreachable(f"{told}: check horde_url") from error
            except HordeUnreachable as error:
                self._when_unreachable(error)
            else:
                insist_on_own_name(account, record)
                log.info("serving for %s at %s", account.username, self._horde.url)
                Vocabulary(self._horde, self._stopping).keep_up()
                self._reached = True

    def pop(self) -> Job | UnusableJob | None:
        """A job, or None when there was none; it has waited then, unless the worker is stopping.

        Raises NotAllowed when the horde won't have this worker, and HordeUnreachable when it was
        never reached since the start.
        """
        in_hand = self._journal.in_hand  # first: what ends from here on is noticed below
        offer = self._journal.cautious(self._offer())
        if not offer.models:
            self._told.state("no model is left to offer: waiting until the files of one are whole")
            self._stopping.wait(LOOK_SECONDS)
            return None
        if not offer.amount:
            self._wait_for_allowance(in_hand)
            return None
        try:
            with self._journal.timeline.during(Phase.POPPING):
                popped = self._horde.pop(offer)
            return self._when_answered(popped)
        except HordeUnreachable as error:
            self._when_pop_failed(error)
        except HordeOnHold as error:
            kind = (
                ObstacleKind.maintenance
                if error.rc == "WorkerMaintenance"
                else ObstacleKind.trouble
            )
            self._told.state(f"on hold: {error}. Remedy: {error.remedy}", "on hold", kind)
            self._stopping.wait(error.retry_after_seconds)
        except HordeRefused as error:
            self._told.state(f"pop refused: {error}", "pop refused")
            self._stopping.wait(self._trouble.delay())
        except UnusableJob as error:
            fresh = self._fresh(error.ids)
            return UnusableJob(fresh, str(error)) if fresh else None
        return None

    def _fresh(self, ids: tuple[str, ...]) -> tuple[str, ...]:
        """Without those that were handed out before, so that nothing ends twice; it has waited
        where none is left."""
        fresh = self._journal.fresh(ids)
        if len(fresh) < len(ids):
            again = next(id for n, id in enumerate(ids) if id not in fresh or id in ids[:n])
            told = f"the horde has handed out {again} twice: dropped"
            if fresh:
                log.warning(told)
            else:
                self._told.state(told)
                self._stopping.wait(self._idle.delay())
        return fresh

    def _wait_for_allowance(self, in_hand: int) -> None:
        """So many images have failed, or are in hand and could, that one more is too many."""
        if in_hand:
            self._journal.wait_for(lambda: self._journal.in_hand < in_hand, LOOK_SECONDS)
        elif seconds := self._journal.drop_limit.wait_seconds():
            limit = self._journal.drop_limit
            stops = f", {limit.stops} of them at stops and pauses" if limit.stops else ""
            self._told.state(
                f"{limit.drops} images were not delivered within the last hour{stops}: asking for"
                f" no more for {seconds / 60:.0f} minutes, before the horde sets this worker to"
                " maintenance"
            )
            self._stopping.wait(seconds)

    def _when_pop_failed(self, error: HordeUnreachable) -> None:
        if error.may_have_worked:
            may_be_drop = self._was_answered and not error.was_answered
            self._journal.lost_pop(may_be_drop=may_be_drop)
            self._was_answered = False
        self._when_unreachable(error)

    def _when_answered(self, popped: Job | NothingToDo) -> Job | None:
        self._reached = self._was_answered = True
        self._trouble.reset()
        self._told.messages(popped.messages)
        if isinstance(popped, Job):
            fresh = self._fresh(popped.ids)
            if not fresh:
                return None
            self._told.state(self._strain())
            self._told.worked()
            self._idle.reset()
            return popped.only(fresh)
        causes = [f"{cause} {count}" for cause, count in popped.skipped.items() if count]
        self._told.state(self._strain())
        self._told.idle(", ".join(causes))
        self._stopping.wait(self._idle.delay())
        return None

    def _strain(self) -> str:
        """What the owner is told while less is offered, long before the horde would mind."""
        limit = self._journal.drop_limit
        if not limit.is_strained:
            return ""
        return (
            f"{limit.failures} images failed within the last hour, and the horde sets a worker that"
            " drops 21 to maintenance: offering smaller pictures with fewer steps; see the log for"
            " the reasons, and lower max_power or max_batch where it was time"
        )

    def _when_unreachable(self, error: HordeUnreachable) -> None:
        delay = self._trouble.delay(error.retry_after_seconds)
        if not self._reached:
            seconds_left = self._give_up_at - elapsed_seconds()
            if seconds_left <= 0:
                told = f"the horde at {self._horde.url} can't be reached ({error})"
                raise HordeUnreachable(f"{told}: check horde_url") from error
            delay = min(delay, seconds_left)
        told = f"{self._horde.url} can't be reached, trying again and again: {error}"
        self._told.state(told, f"{self._horde.url} can't be reached")
        self._stopping.wait(delay)


def insist_on_own_name(
    account: Account, record: WorkerRecord | None, kind: Kind = Kind.image
) -> None:
    """Raises NotAllowed when the name surely belongs to another account or kind of worker.

    Where that is not known, the pop will tell.
    """
    if record is None:
        return
    if account.owns(record) is False:
        rc = "WrongCredentials"
        raise NotAllowed(rc, f"the name {record.name!r} is taken", refusals.POP[rc].remedy)
    if record.type != kind.worker_type:
        rc, told = "PolymorphicNameConflict", f"{record.name!r} is a worker of type {record.type!r}"
        raise NotAllowed(rc, told, refusals.POP[rc].remedy)


class Told:
    """Tells the owner in few lines what keeps jobs away, when that ends, and messages."""

    def __init__(self, journal: Journal, clock: Callable[[], float] = elapsed_seconds):
        self._journal = journal
        self._clock = clock
        self._subject = ""
        self._trouble = Trouble("", log, over="")
        self._worked_at = clock()
        self._idle_due = IDLE_SECONDS
        self._messages: set[str] = set()

    def state(self, line: str, calls: str = "", kind: ObstacleKind = ObstacleKind.trouble) -> None:
        """What keeps jobs away; "" is nothing any more. Only what is new is logged.

        `calls` names what fails again and again, so that it is summed up while it lasts; another
        cause of the same is new.
        """
        subject = calls or without_numbers(line)
        if not line:
            self._trouble.over()
        elif subject != self._subject:
            self._trouble = Trouble(calls, log, over="all is well again", clock=self._clock)
            self._trouble.failed(line)
        elif calls:
            self._trouble.failed(line)
        self._subject = subject
        self._journal.say(Obstacle(line, kind) if line else Obstacle())

    def idle(self, skipped: str) -> None:
        """The horde has no job that fits: `skipped` are the others, by why. A live one always has
        some, so that is shown, and logged only where no job has come for long."""
        told = f"no job fits this worker; skipped requests: {skipped}" if skipped else ""
        if told and not self._subject:
            self._journal.say(Obstacle(told, ObstacleKind.idle))
        seconds = self._clock() - self._worked_at
        if seconds >= self._idle_due:
            self._idle_due = 2 * seconds
            log.info("no job for %s%s", duration(seconds), f": {told}" if told else "")

    def worked(self) -> None:
        """A job has come."""
        self._worked_at, self._idle_due = self._clock(), IDLE_SECONDS

    def messages(self, messages: tuple[HordeMessage, ...]) -> None:
        """Tell what the horde's moderators write to this worker; they repeat it with each pop."""
        self._journal.hear(messages)
        for message in messages:
            if message.id not in self._messages:
                if len(self._messages) >= MOST_MESSAGES:
                    self._messages.clear()
                self._messages.add(message.id)
                log.warning("message from the horde: %s", message.message)
