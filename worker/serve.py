"""Runs a bridge in the foreground: signals, the view, and an end in bounded time."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from worker.bridge import Bridge
from worker.terminal import BoardView

log = logging.getLogger(__name__)

REFRESH_SECONDS = 0.25
DRAIN_SECONDS = 60.0  # for the job at work and for uploads, after the first signal
ABANDON_SECONDS = 10.0  # for reporting faults after that
HURRIED_SECONDS = 2.0  # after a second signal
STOP_SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]


class Interrupted(Exception):
    """A second signal came: leave at once."""


def serve(bridge: Bridge, view: BoardView, is_done: Callable[[], bool] = lambda: False) -> bool:
    """Run the bridge until it fails, `is_done`, or a signal; whether a signal ended it.

    SIGINT or SIGTERM finish the job at work (within DRAIN_SECONDS) and fault the others. Raises
    what made the bridge fail, and Interrupted at a second signal, with the engine killed.
    """
    with _counted_signals() as signals, view:
        bridge.start()
        try:
            _watch(bridge, view, is_done, signals)
            _drain(bridge, view, signals)
        except BaseException:  # whatever it is, no bridge is left behind that nobody can stop
            bridge.abandon()
            bridge.join(HURRIED_SECONDS)  # a fault reported now spares its client the time-out
            raise
        view.refresh()
    if bridge.failure is not None:
        raise bridge.failure
    return signals.count > 0


def _watch(bridge: Bridge, view: BoardView, is_done: Callable[[], bool], signals: Signals) -> None:
    while not bridge.is_stopping:
        if signals.count:
            log.info("stopping: the job at work is finished first; once more stops at once")
        if signals.count or is_done():
            bridge.stop()
        view.refresh()
        time.sleep(REFRESH_SECONDS)


def _drain(bridge: Bridge, view: BoardView, signals: Signals) -> None:
    """Wait for the bridge's end, first with patience, then without."""
    if _ends_within(DRAIN_SECONDS, bridge, view, signals):
        return
    log.warning("finishing took longer than %.0f s: what is not done is faulted", DRAIN_SECONDS)
    bridge.abandon()
    if not _ends_within(ABANDON_SECONDS, bridge, view, signals):
        log.error("some calls to the horde did not end in time; leaving them")


def _ends_within(seconds: float, bridge: Bridge, view: BoardView, signals: Signals) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if bridge.join(REFRESH_SECONDS):
            return True
        if signals.count > 1:
            raise Interrupted
        view.refresh()
    return False


@dataclass(slots=True)
class Signals:
    """How many asked us to stop. A number: a lock taken in a signal handler may never come."""

    count: int = 0


@contextmanager
def _counted_signals() -> Generator[Signals]:
    """SIGINT and SIGTERM are counted; what they did before is restored at the end."""
    signals = Signals()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        signals.count += 1

    before = {number: signal.signal(number, on_signal) for number in STOP_SIGNALS}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
