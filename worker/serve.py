"""Runs a bridge in the foreground: signals, orders, the view, and an end in bounded time."""

from __future__ import annotations

import logging
import select
import signal
import socket
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from types import FrameType

from worker.bridge import Bridge
from worker.orders import ENDED, STARTING, Order, Orders
from worker.stop_signals import STOP_SIGNALS
from worker.terminal import BoardView

log = logging.getLogger(__name__)

REFRESH_SECONDS = 1.0  # between two looks at orders, and at what is shown
END_SECONDS = 0.5  # between two looks whether the end has come
STOP_SECONDS = 60.0  # for the jobs in hand, after the first signal
ABANDON_SECONDS = 10.0  # for reporting faults after that
HURRIED_SECONDS = 2.0  # after a second signal


class Interrupted(Exception):
    """A second signal came: leave at once."""


def serve(
    bridge: Bridge,
    view: BoardView,
    is_done: Callable[[], bool] = lambda: False,
    *,
    orders: Orders | None = None,
    stop_seconds: float = STOP_SECONDS,
    look_after: Callable[[], None] = lambda: None,
) -> bool:
    """Run the bridge until it fails, `is_done`, the order to drain, or a signal; whether a signal
    ended it.

    SIGINT, SIGTERM or SIGHUP finish the jobs in hand as far as that takes no more than
    `stop_seconds`, and fault the others. `look_after` is called about once a second.

    Raises what made the bridge fail, what `look_after` raises, and Interrupted at a second signal,
    with the engine killed.
    """
    with _counted_signals() as signals, view:
        looks = (look_after, bridge.watch, view.refresh)
        watch = _Watch(bridge, looks, signals, orders, stop_seconds)
        watch.obey()
        bridge.start()
        try:
            watch.until(lambda: bridge.is_stopping, is_done)
            watch.until_ended()
        except BaseException:  # whatever it is, no bridge is left behind that nobody can stop
            bridge.abandon()
            bridge.join(HURRIED_SECONDS)  # a fault reported now spares its client the time-out
            raise
        view.refresh()
        if bridge.failure is not None:
            log.error("%s", bridge.failure)
        watch.answer(ENDED)
    if bridge.failure is not None:
        raise bridge.failure
    return signals.count > 0


class _Watch:
    """What the main thread does all the time."""

    def __init__(
        self,
        bridge: Bridge,
        looks: tuple[Callable[[], None], ...],
        signals: Signals,
        orders: Orders | None,
        stop_seconds: float,
    ):
        self._bridge = bridge
        self._looks = looks
        self._signals = signals
        self._orders = orders
        self._stop_seconds = stop_seconds
        self._order: Order | None = None
        self._answered = ""
        self._deadline = float("inf")

    def until(self, is_over: Callable[[], bool], is_done: Callable[[], bool]) -> None:
        self._look()
        while not is_over():
            self._signals.nap(REFRESH_SECONDS)
            self.obey()
            if is_done():
                self._stop_soon()
            self._look()

    def until_ended(self) -> None:
        """Wait for the bridge's end, first with patience, then without."""
        while not self._bridge.join(END_SECONDS):
            if self._signals.count > 1:
                raise Interrupted
            self.obey()
            self._look()
            if time.monotonic() > self._deadline:
                self._abandon()
                return

    def obey(self) -> None:
        """Do what a signal, a failure or a new order says."""
        has_deadline = self._deadline < float("inf")
        if self._signals.count and not has_deadline:
            log.info(
                "stopping: jobs in hand have %.0f s; once more stops at once", self._stop_seconds
            )
            self._stop_soon()
        elif self._bridge.failure is not None and not has_deadline:
            self._stop_soon()
        order = self._orders.given() if self._orders else None
        if order is not None and order is not self._order:
            self._order = order
            self._carry_out(order)
        self.answer(self._doing())

    def answer(self, doing: str) -> None:
        """Tell who gave the order; nobody is disturbed where that can't be written."""
        if self._orders is not None and doing != self._answered:
            self._answered = doing
            log.info("%s", doing)
            with suppress(OSError):
                self._orders.answer(doing)

    def _carry_out(self, order: Order) -> None:
        match order:
            case Order.pause:
                self._bridge.pause()
            case Order.serve:
                self._bridge.resume()
            case Order.drain:
                self._bridge.stop()

    def _doing(self) -> str:
        if self._bridge.is_stopping:
            return "draining"
        if self._bridge.is_paused:
            return "paused" if self._bridge.is_device_free else "pausing"
        return "serving" if self._bridge.is_ready else STARTING

    def _stop_soon(self) -> None:
        self._deadline = time.monotonic() + self._stop_seconds
        self._bridge.stop(self._stop_seconds)

    def _abandon(self) -> None:
        if self._bridge.in_hand:
            log.warning("finishing took longer than %.0f s: leaving the rest", self._stop_seconds)
        self._bridge.abandon()
        if not self._bridge.join(ABANDON_SECONDS):
            log.error("not ended in time: %s; leaving them", ", ".join(self._bridge.busy))

    def _look(self) -> None:
        for look in self._looks:
            look()


class Signals:
    """How many asked us to stop. No lock: one that a signal handler takes may never come."""

    def __init__(self) -> None:
        self.count = 0
        self._bell, self._wire = socket.socketpair()
        self._wire.setblocking(False)

    def came(self) -> None:
        self.count += 1
        with suppress(BlockingIOError):  # it rings already
            self._wire.send(b"\0")

    def nap(self, seconds: float) -> None:
        """Until the next signal, but no longer."""
        if select.select([self._bell], [], [], seconds)[0]:
            self._bell.recv(64)

    def close(self) -> None:
        self._bell.close()
        self._wire.close()


@contextmanager
def _counted_signals() -> Generator[Signals]:
    """STOP_SIGNALS are counted; what they did before is restored at the end."""
    signals = Signals()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        signals.came()

    # What is ignored stays so: nohup wants no end with the terminal.
    heard = [number for number in STOP_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, on_signal) for number in heard}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signals.close()
