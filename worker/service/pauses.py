"""What the owner and the machine want of a running worker: to serve, to pause, or to end.

The owner's orders come by `Orders`, from another terminal, or by the methods here, from the page
and the screen. Beside them, watches look at hours, programs and the like. All reasons to pause
meet here, each with its sentence, and `worker/service/serve.py` tells them to the bridge.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime

from worker.clock import SteadyClock
from worker.line.pausing import PauseCause, PauseKind, PauseReason
from worker.service.orders import Given, Order, Orders

log = logging.getLogger(__name__)

LOOK_SECONDS = 2.0  # between two looks at programs, hours and the like
CALM_SECONDS = 60.0  # a reason has to be gone for so long, so that serving does not flap


@dataclass(frozen=True, slots=True)
class Watch:
    """Something on this machine that may be a reason to pause."""

    look: Callable[[], PauseReason | None]
    """Raises nothing that a person can mend; it says so in the reason, or is silent."""
    calm_seconds: float = CALM_SECONDS


class Pauses:
    """The reasons to pause that there are at this moment. Any thread may use it.

    Args:
        watches: those that count at the moment. They are looked at by one thread, one after the
            other, so that a slow one holds up nobody else.
    """

    def __init__(
        self,
        orders: Orders,
        watches: Callable[[], Sequence[Watch]] = tuple,
        clock: SteadyClock | None = None,
    ):
        self.orders = orders
        self._watches = watches
        self._clock = clock or SteadyClock()
        self._latest: dict[Watch, tuple[PauseReason, float]] = {}  # with when it was so
        self._seen: tuple[PauseReason, ...] = ()
        self._given = Given(order=Order.serve)

    # ---- the owner ---------------------------------------------------------------------------

    def pause(
        self, until: float | None = None, *, is_span: bool = False, at_once: bool = False
    ) -> None:
        """Take no more jobs `until` then (seconds since 1970 UTC), or until `resume`.

        `is_span`: it was said as so many hours. `at_once`: jobs in hand are given back.
        """
        self._order(Given(order=Order.pause, until=until, is_span=is_span, at_once=at_once))

    def resume(self) -> None:
        """The owner's pause is over; other reasons are not."""
        self._order(Order.serve)

    def drain(self) -> None:
        """Finish what is in hand, then end."""
        self._order(Order.drain)

    def stop(self) -> None:
        """End as at a signal, within the seconds of `stop_timeout`."""
        self._order(Order.stop)

    def _order(self, order: Order | Given) -> None:
        self.orders.give_here(order)

    # ---- what is wanted ----------------------------------------------------------------------

    def follow(self) -> Order:
        """The owner's latest order; what can't be read changes nothing.

        To be called often, by one thread: a pause ends when its time has come.
        """
        jumped = self._clock.catch_up()
        given = self.orders.given() or self._given
        if given.order is Order.pause and given.until is not None:
            if jumped and given.is_span:
                given = given.model_copy(update={"until": given.until + jumped})
                self.orders.give_here(given)
            if given.until is not None and given.until <= self._clock():
                given = Given(order=Order.serve)
                self.orders.give_here(given)
        self._given = given
        return given.order

    @property
    def reasons(self) -> tuple[PauseReason, ...]:
        """Why no jobs are asked for now: none of them where they are. The owner's comes first."""
        given = self._given
        if given.order is not Order.pause:
            return self._seen
        return (_ordered(given, self._clock()), *self._seen)

    # ---- what the machine says ---------------------------------------------------------------

    def look(self) -> None:
        """At everything once. A reason lasts until it has been gone for its `calm_seconds`."""
        now, before = self._clock(), self._latest
        self._latest = {}
        for watch in self._watches():
            reason, latest = _looked(watch), before.get(watch)
            if reason is not None:
                self._latest[watch] = (reason, now)
            elif latest is not None and 0 <= now - latest[1] < watch.calm_seconds:
                over = latest[1] + watch.calm_seconds
                self._latest[watch] = (replace(latest[0], until=over), latest[1])
        self._seen = tuple(reason for reason, _ in self._latest.values())

    @contextmanager
    def watched(self) -> Generator[None]:
        """While this lasts, it is looked again and again; for the first time before it begins."""
        over = threading.Event()

        def look_again() -> None:
            while not over.wait(LOOK_SECONDS):
                self.look()

        self.look()
        thread = threading.Thread(target=look_again, name="pauses", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()


def _looked(watch: Watch) -> PauseReason | None:
    try:
        return watch.look()
    except Exception:
        log.exception("a bug of ours: one reason to pause can't be looked for")
        return None


def _ordered(given: Given, now: float) -> PauseReason:
    kind = PauseKind.at_once if given.at_once else PauseKind.finish
    end = f" until {moment(given.until, now)}" if given.until is not None else ""
    told = f"you paused it{end}; ./horde-bridge.sh resume ends that"
    return PauseReason(PauseCause.owner, told, kind, given.until)


def moment(
    at: float, now: float, local: Callable[[float], datetime] = datetime.fromtimestamp
) -> str:
    """In local time, as briefly as it can't be mistaken: 08:00, Wed 08:00, 2026-12-24 08:00."""
    then, today = local(at), local(now).date()
    if then.date() == today:
        return f"{then:%H:%M}"
    is_near = 0 < (then.date() - today).days < 7
    return f"{then:%a %H:%M}" if is_near else f"{then:%Y-%m-%d %H:%M}"
