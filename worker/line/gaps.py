"""What the device does while no picture waits for it, and now and then before one that does."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

from hordelib.engine import Generation
from hordelib.errors import EngineError, GenerationFailed
from hordelib.files.model import Model
from hordelib.job.batching import Member, share_key
from worker.clock import elapsed_seconds
from worker.jobs.results import STOPPING
from worker.jobs.status import JobRow

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 30.0  # for a gap; then one has a turn of its own
_LOOK_SECONDS = 0.5  # between two looks whether the worker is in a hurry

RunBetween = Callable[[Sequence[Member], Model, float], Sequence[Generation]]
"""Makes jobs of one model together, until a moment (elapsed_seconds()) and no longer."""


class PictureLine(Protocol):
    """What other kinds of work see of the line of pictures."""

    @property
    def is_ready(self) -> bool: ...

    @property
    def is_paused(self) -> bool: ...

    @property
    def in_hand(self) -> int: ...

    @property
    def seconds_ahead(self) -> float:
        """The device's, for the pictures in hand; infinite where that is not known."""
        ...

    @property
    def gaps(self) -> Gaps: ...


@dataclass(eq=False, slots=True)
class _Asked:
    member: Member
    model: Model
    since: float  # elapsed_seconds(), as the next
    until: float
    is_alone: bool = False  # a batch with it failed
    future: Future[Generation] = field(default_factory=Future[Generation])

    def may_join(self, lead: _Asked) -> bool:
        if self.is_alone or lead.is_alone or self.model != lead.model:
            return False
        key = share_key(self.member.params, self.model.family)
        return key is not None and key == share_key(lead.member.params, lead.model.family)


class Gaps:
    """Work for the engine that waits for a gap. Any thread may ask; a feeder does it.

    While pictures keep coming there is no gap. What has waited for `patience_seconds` then has a
    turn before the next picture's job, but each of those waits for one turn at most: the next one
    is given once all that were in hand at the end of a turn are made.

    Args:
        jobs: the pictures' jobs in hand that are not made yet.
    """

    def __init__(
        self,
        wake: Callable[[], None],
        hurry: threading.Event,
        jobs: Callable[[], Iterable[JobRow]],
        patience_seconds: float = PATIENCE_SECONDS,
    ):
        self._wake = wake
        self._hurry = hurry
        self._jobs = jobs
        self._patience_seconds = patience_seconds
        self._lock = threading.Lock()
        self._waiting: list[_Asked] = []  # the oldest first
        self._delayed = frozenset[str]()  # ids of jobs that have waited for a turn
        self.turn_seconds = 0.0
        """What a turn took lately: the longest of late, and less with each that was shorter."""

    @property
    def is_empty(self) -> bool:
        return not self._waiting

    def fill(self, member: Member, model: Model, seconds: float) -> Generation:
        """What the engine makes of it, in a gap or in its turn.

        Those that may share a batch are made together. Raises what the engine raises, and
        EngineError where neither came within `seconds`, after which it is stopped.
        """
        now = elapsed_seconds()
        asked = _Asked(member, model, now, now + seconds)
        with self._lock:
            self._waiting.append(asked)
        self._wake()
        while True:
            try:
                return asked.future.result(_LOOK_SECONDS)
            except TimeoutError:
                is_late = elapsed_seconds() > asked.until
                if (self._hurry.is_set() or is_late) and self._withdraw(asked):
                    told = STOPPING if self._hurry.is_set() else "the device was never free"
                    raise EngineError(told) from None

    def take_turn(self, run: RunBetween) -> bool:
        """In a gap: do the oldest and what shares its batch, by a thread that feeds an engine.

        Says whether there was one.
        """
        if not (batch := self._take()):
            return False
        began = elapsed_seconds()
        self._do(batch, run)
        self.turn_seconds = max(elapsed_seconds() - began, self.turn_seconds * 0.7)
        self._delayed = self._ids()
        return True

    def take_due(self, run: RunBetween) -> bool:
        """The same before the next picture's job, where one has waited for so long."""
        return self._is_due() and self.take_turn(run)

    def _is_due(self) -> bool:
        with self._lock:
            waited = elapsed_seconds() - self._waiting[0].since if self._waiting else 0.0
        is_due = bool(self._waiting) and waited >= self._patience_seconds
        return is_due and self._delayed.isdisjoint(self._ids())

    def _ids(self) -> frozenset[str]:
        return frozenset(row.job_id for row in self._jobs())

    def _take(self) -> list[_Asked]:
        with self._lock:
            if not self._waiting:
                return []
            lead, *others = self._waiting
            batch = [lead, *(each for each in others if each.may_join(lead))]
            self._waiting = [each for each in others if each not in batch]
            return batch

    def _withdraw(self, asked: _Asked) -> bool:
        """Not what is at work."""
        with self._lock:
            if asked not in self._waiting:
                return False
            self._waiting.remove(asked)
            return True

    def _do(self, batch: Sequence[_Asked], run: RunBetween) -> None:
        try:
            until = max(each.until for each in batch)
            generations = run([each.member for each in batch], batch[0].model, until)
        except (GenerationFailed, EngineError) as error:
            if len(batch) > 1:  # it may be one picture's fault
                log.warning("%d forms in one batch: %s; one by one now", len(batch), error)
                self._put_back(batch)
            else:
                batch[0].future.set_exception(error)
        except Exception as error:  # noqa: BLE001 - it is told to who has asked
            for each in batch:
                each.future.set_exception(error)
        else:
            for each, generation in zip(batch, generations, strict=True):
                each.future.set_result(generation)

    def _put_back(self, batch: Sequence[_Asked]) -> None:
        for each in batch:
            each.is_alone = True
        with self._lock:
            self._waiting = [*batch, *self._waiting]
