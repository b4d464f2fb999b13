"""Keeps the worker from being put into maintenance: the horde does that to one that drops jobs.

The 21st faulted or aborted image within an hour is one too many (horde API: "dropping too many
jobs"). The limit has so few images in hand that all of them could fail and the limit would still be
some way off; and what makes one job fail often makes the next one fail too, so after some failures
the worker asks for less. What is given back at a stop or a pause counts as dropped at the horde,
but it says nothing of the next job.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace

from worker.clock import elapsed_seconds
from worker.horde.api import Offer

WINDOW_SECONDS = 3600.0
MOST_DROPS = 16  # within the window, those included that are still in hand
STRAINED_SHARE = 3  # from a third of them on, less is offered
SMALLEST_PIXELS = 512 * 512


class DropLimit:
    """Counts the images that were not delivered within the last hour. Any thread may use it.

    Args:
        most_drops: images that may fail within the window.
        ages: seconds since each earlier one.
        stop_ages: of those that were given back because the worker was stopped or paused.
    """

    def __init__(
        self,
        most_drops: int = MOST_DROPS,
        ages: Iterable[float] = (),
        stop_ages: Iterable[float] = (),
        clock: Callable[[], float] = elapsed_seconds,
    ):
        self._most = most_drops
        self._clock = clock
        self._lock = threading.Lock()
        self._drops = deque(sorted(clock() - age for age in ages))
        self._stops = sorted(clock() - age for age in stop_ages)

    def count(self, drops: int, *, are_stops: bool = False) -> None:
        """`are_stops`: they were given back because the worker was stopped or paused."""
        with self._lock:
            now = [self._clock()] * drops
            self._drops.extend(now)
            self._stops = [*self._stops, *now][-self._most :] if are_stops else self._stops

    @property
    def drops(self) -> int:
        """Images dropped within the last hour."""
        with self._lock:
            while self._drops and self._drops[0] <= self._clock() - WINDOW_SECONDS:
                self._drops.popleft()
            return len(self._drops)

    @property
    def stops(self) -> int:
        """Those among the drops that stops and pauses of the worker have caused."""
        return sum(stop > self._clock() - WINDOW_SECONDS for stop in self._stops)

    @property
    def failures(self) -> int:
        """Those that no stop or pause has caused: only they say something of the jobs."""
        return max(0, self.drops - self.stops)

    @property
    def is_strained(self) -> bool:
        return self.failures * STRAINED_SHARE >= self._most

    def allowance(self, in_hand: int) -> int:
        """Images that may be asked for beside those in hand."""
        return max(0, self._most - self.drops - in_hand)

    def wait_seconds(self) -> float:
        """Until one more image may fail, when nothing is in hand; 0 while one may."""
        with self._lock:
            if len(self._drops) < self._most:
                return 0.0
            return max(0.0, self._drops[-self._most] + WINDOW_SECONDS - self._clock())

    def cautious(self, offer: Offer, in_hand: int) -> Offer:
        """The offer with no more images than may be asked for; smaller jobs while strained.

        A request's images are not split up for that: the horde hands each part out with one seed.
        """
        offer = replace(offer, amount=min(offer.amount, self.allowance(in_hand)))
        if not self.is_strained:
            return offer
        pixels = min(offer.max_pixels, max(offer.max_pixels // 2, SMALLEST_PIXELS))
        return replace(offer, max_pixels=pixels, limit_max_steps=True)
