"""What the device does while no picture waits for it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol

from hordelib.engine import Generation
from hordelib.errors import EngineError
from hordelib.files.model import Model
from hordelib.job.batching import Member
from worker.jobs.results import STOPPING

_LOOK_SECONDS = 0.5  # between two looks whether the worker is in a hurry

RunBetween = Callable[[Member, Model], Generation]


class PictureLine(Protocol):
    """What other kinds of work see of the line of pictures."""

    @property
    def is_ready(self) -> bool: ...

    @property
    def is_paused(self) -> bool: ...

    @property
    def in_hand(self) -> int: ...

    @property
    def gaps(self) -> Gaps: ...


class Gaps:
    """Work for the engine that waits for a gap. Any thread may ask; the feeder does it."""

    def __init__(self, wake: Callable[[], None], hurry: threading.Event):
        self._wake = wake
        self._hurry = hurry
        self._waiting: queue.SimpleQueue[tuple[Member, Model, Future[Generation]]]
        self._waiting = queue.SimpleQueue()

    @property
    def is_empty(self) -> bool:
        return self._waiting.empty()

    def fill(self, member: Member, model: Model, seconds: float) -> Generation:
        """The pictures, once no job waits for the device: each gap takes one of these.

        Raises what the engine raises, and EngineError where no gap came within `seconds`.
        """
        future: Future[Generation] = Future()
        self._waiting.put((member, model, future))
        self._wake()
        while not self._hurry.is_set() and seconds > 0:
            try:
                return future.result(min(_LOOK_SECONDS, seconds))
            except TimeoutError:
                seconds -= _LOOK_SECONDS
        if future.cancel():
            raise EngineError(STOPPING if self._hurry.is_set() else "the device was never free")
        return future.result()

    def take_turn(self, run: RunBetween) -> bool:
        """Do one of them, by the thread that feeds the engine; whether there was one."""
        try:
            member, model, future = self._waiting.get_nowait()
        except queue.Empty:
            return False
        if not future.set_running_or_notify_cancel():
            return True
        try:
            future.set_result(run(member, model))
        except Exception as error:  # noqa: BLE001 - it is told to who has asked
            future.set_exception(error)
        return True
