"""Runs a bridge in the foreground: signals, orders, the view, and an end in bounded time."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from worker.children.signals import StopSignals
from worker.clock import elapsed_seconds
from worker.jobs.status import ObstacleKind, StatusView
from worker.line.bridge import Bridge
from worker.line.pausing import PauseReason
from worker.service.orders import ENDED, MAINTENANCE, SERVING, STARTING, Order
from worker.service.overview import Overview, kind_overview, overview_of
from worker.service.pauses import Pauses
from worker.service.terminal import Display

log = logging.getLogger(__name__)

ANSWER_SECONDS = 2.0  # between two overviews that differ in figures alone
REFRESH_SECONDS = 1.0  # between two looks at orders, and at what is shown
END_SECONDS = 0.5  # between two looks whether the end has come
JOIN_SECONDS = 0.3  # of that, in which the end is seen at once
ABANDON_SECONDS = 10.0  # for reporting faults after that
HURRIED_SECONDS = 2.0  # after a second signal
_STOPPING = (
    "stopping: jobs in hand have %.0f s, and those that would take longer are given back; %s"
)
_TOLD = (
    ObstacleKind.maintenance,
    ObstacleKind.paused,
    ObstacleKind.trouble,
)  # what `status` says beside what the worker does


def serve(
    bridge: Bridge,
    view: Display,
    is_done: Callable[[], bool] = lambda: False,
    *,
    signals: StopSignals,
    pauses: Pauses | None = None,
    look_after: Sequence[Callable[[], object]] = (),
) -> bool:
    """Run the bridge until it fails, `is_done`, the order to drain or restart, or a signal; whether
    a signal ended it.

    SIGINT, SIGTERM or SIGHUP finish the jobs in hand as far as that takes no more than the
    bridge's `stop_seconds`, and fault the others. What is in `look_after` is called about once a
    second.

    Raises what made the bridge fail, what `look_after` raises, and KeyboardInterrupt at a second
    signal, with the engine killed.
    """
    with signals.counted(), view:
        looks = (*look_after, bridge.watch, view.refresh)
        watch = _Watch(bridge, looks, signals, pauses, partial(view.nap, signals))
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


def way_to_hurry(signals: StopSignals) -> str:
    if signals.is_from_keyboard:
        return "press Ctrl-C again to stop at once"
    return "a second signal stops it at once"


class _Watch:
    """What the main thread does all the time."""

    def __init__(
        self,
        bridge: Bridge,
        looks: tuple[Callable[[], object], ...],
        signals: StopSignals,
        pauses: Pauses | None,
        nap: Callable[[float], None],
    ):
        self._bridge = bridge
        self._nap = nap
        self._looks = looks
        self._signals = signals
        self._pauses = pauses
        self._stop_seconds = bridge.stop_seconds
        self._order = Order.serve
        self._reasons: Sequence[PauseReason] = ()
        self._began = elapsed_seconds()
        self._answered = Overview(doing="")
        self._answered_at = -math.inf
        self._deadline = float("inf")

    def until(self, is_over: Callable[[], bool], is_done: Callable[[], bool]) -> None:
        self._look()
        while not is_over():
            self._nap(REFRESH_SECONDS)
            self.obey()
            if is_done():
                self._stop_soon()
            self._look()

    def until_ended(self) -> None:
        """Wait for the bridge's end, first with patience, then without."""
        while not self._bridge.join(JOIN_SECONDS):
            self._nap(END_SECONDS - JOIN_SECONDS)
            if self._signals.count > 1:
                raise KeyboardInterrupt
            self.obey()
            self._look()
            if time.monotonic() > self._deadline:
                self._abandon()
                return

    def obey(self) -> None:
        """Do what a signal, a failure or a new order says."""
        has_deadline = self._deadline < float("inf")
        if self._signals.count and not has_deadline:
            log.info(_STOPPING, self._stop_seconds, way_to_hurry(self._signals))
            self._stop_soon()
        elif self._bridge.failure is not None and not has_deadline:
            self._stop_soon()
        if self._pauses:
            self._carry_out(self._pauses.follow(), self._pauses.reasons)
        self.answer()

    def answer(self, doing: str = "") -> None:
        """Tell those who look, now and then and when what it is `doing` changes; nobody is
        disturbed where that can't be written."""
        if self._pauses is None:
            return
        view, models = self._bridge.view(), self._bridge.models
        why = view.obstacle.told if view.obstacle.kind in _TOLD else ""
        now = overview_of(
            view,
            doing or self._doing(view),
            why,
            began=time.time() - (elapsed_seconds() - self._began),  # the clock may have been set
            models=models,
            pauses=self._pauses.reasons,
        )
        others = (kind_overview(it.kind, it.name, it.view()) for it in self._bridge.companions)
        now = now.beside(others, self._bridge.devices)
        is_new = (now.doing, now.why) != (self._answered.doing, self._answered.why)
        is_time = time.monotonic() >= self._answered_at + ANSWER_SECONDS
        if not is_new and (not is_time or now.is_like(self._answered)):
            return
        if now.doing != self._answered.doing:
            log.info("%s%s", now.doing, f": {now.why}" if self._bridge.is_paused else "")
        self._answered, self._answered_at = now, time.monotonic()
        with suppress(OSError):
            self._pauses.orders.answer(now)

    def _carry_out(self, order: Order, reasons: Sequence[PauseReason]) -> None:
        is_new, self._order = order is not self._order, order
        if is_new and order in (Order.drain, Order.restart):
            self._bridge.stop()
        elif is_new and order is Order.stop and self._deadline == float("inf"):
            log.info(_STOPPING, self._stop_seconds, way_to_hurry(self._signals))
            self._stop_soon()
        if reasons or self._reasons:
            self._bridge.pause(reasons)
            self._reasons = reasons

    def _doing(self, view: StatusView) -> str:
        if self._bridge.is_stopping:
            return "draining"
        if self._bridge.is_paused:
            return "paused" if self._bridge.has_paused else "pausing"
        if not self._bridge.is_ready:
            return STARTING
        return MAINTENANCE if view.obstacle.kind is ObstacleKind.maintenance else SERVING

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
