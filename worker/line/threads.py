"""The threads of a line: what stops one of them is told, and their end can be waited for."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from worker.clock import elapsed_seconds
from worker.errors import WorkerError

log = logging.getLogger(__name__)


class Threads:
    """`fail` is told what has stopped one of them."""

    def __init__(self, fail: Callable[[WorkerError], None]):
        self._fail = fail
        self._all: list[threading.Thread] = []

    def spawn(self, name: str, work: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=self._guarded, args=(work,), name=name, daemon=True)
        self._all.append(thread)
        thread.start()
        return thread

    def spawn_all(self, name: str, work: Callable[[], None], count: int) -> list[threading.Thread]:
        return [self.spawn(f"{name}-{number}", work) for number in range(count)]

    def join(self, timeout: float) -> bool:
        """Wait for the end of all, up to `timeout` seconds; whether they have ended."""
        end = elapsed_seconds() + timeout
        for thread in self._all:
            thread.join(max(0.0, end - elapsed_seconds()))
        return not self.busy

    @property
    def busy(self) -> list[str]:
        """The names of those that have not ended."""
        return [thread.name for thread in self._all if thread.is_alive()]

    def _guarded(self, work: Callable[[], None]) -> None:
        """A thread's outermost frame."""
        try:
            work()
        except WorkerError as error:
            self._fail(error)
        except Exception as error:
            log.exception("a bug of ours stopped the bridge")
            self._fail(WorkerError(f"internal error: {type(error).__name__}: {error}"))


class ThreadsByWork:
    """The threads by what they do, once there are any."""

    popper: threading.Thread
    preparers: list[threading.Thread]
    feeders: list[threading.Thread]
    encoder: threading.Thread
    finishers: list[threading.Thread]
    judge_starter: threading.Thread
