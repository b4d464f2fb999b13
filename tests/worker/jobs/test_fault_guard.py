"""The horde sets a worker to maintenance at the 21st drop within an hour; ours never comes near."""

from __future__ import annotations

import pytest

from tests.support.sandbox_client import MovableClock
from worker.horde.api import Offer
from worker.jobs.drop_limit import MOST_DROPS, WINDOW_SECONDS, DropLimit

OFFER = Offer(name="w", models=("m",), bridge_agent="a:1:b", max_pixels=1 << 21, amount=20)


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock(0.0)


@pytest.fixture
def guard(clock: MovableClock) -> DropLimit:
    return DropLimit(clock=clock)


def test_what_is_in_hand_may_all_fail_and_there_is_room_left(guard: DropLimit):
    assert guard.cautious(OFFER, in_hand=0).amount == MOST_DROPS < 20
    assert guard.cautious(OFFER, in_hand=MOST_DROPS - 3).amount == 3
    guard.count(2)
    assert guard.cautious(OFFER, in_hand=MOST_DROPS - 3).amount == 1
    assert guard.cautious(OFFER, in_hand=MOST_DROPS).amount == 0


def test_earlier_stops_count_as_drops_and_are_known_to_be_stops():
    clock = MovableClock(10_000.0)
    guard = DropLimit(16, ages=[10, 20, 3500], stop_ages=[20, 3500], clock=clock)
    assert (guard.drops, guard.stops) == (3, 2)
    clock.move(200)
    assert (guard.drops, guard.stops) == (2, 1)


def test_a_third_of_the_drops_makes_it_offer_less(guard: DropLimit):
    guard.count(5)
    assert not guard.is_strained
    assert guard.cautious(OFFER, in_hand=0).max_pixels == OFFER.max_pixels
    guard.count(1)
    assert guard.is_strained
    less = guard.cautious(OFFER, in_hand=0)
    assert (less.limit_max_steps, less.max_pixels) == (True, OFFER.max_pixels // 2)


def test_after_the_most_drops_nothing_is_asked_for(guard: DropLimit):
    guard.count(MOST_DROPS)
    assert guard.cautious(OFFER, in_hand=0).amount == 0


def test_drops_count_for_an_hour(guard: DropLimit, clock: MovableClock):
    guard.count(MOST_DROPS - 1)
    clock.move(10)
    guard.count(1)
    assert guard.wait_seconds() == WINDOW_SECONDS - 10
    clock.move(WINDOW_SECONDS - 10)
    assert (guard.wait_seconds(), guard.drops) == (0, 1)
    assert not guard.is_strained


def test_those_of_an_earlier_life_count_too(clock: MovableClock):
    guard = DropLimit(ages=[WINDOW_SECONDS - 5, 10.0], clock=clock)
    assert guard.drops == 2
    clock.move(5)
    assert guard.drops == 1
