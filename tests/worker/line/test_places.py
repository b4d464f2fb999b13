"""How far a worker pops ahead."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from worker.line.places import Places


def taken(places: Places) -> int:
    """How many more places there are at the moment."""
    count = 0
    while places.take(0):
        count += 1
    return count


def test_the_job_at_work_and_so_many_waiting_always_have_a_place():
    assert taken(Places(waiting=2, seconds=10, most=8)) == 3
    assert taken(Places(waiting=0, seconds=10, most=8)) == 1


def test_short_jobs_may_be_more():
    places = Places(waiting=1, seconds=10, most=8)
    for number in range(7):
        assert places.take(0)
        places.expect(str(number), 1.0)
    assert taken(places) == 1  # until it is read, nobody knows what it takes


def test_no_more_are_taken_than_the_most():
    places = Places(waiting=1, seconds=10, most=4)
    for number in range(4):
        assert places.take(0)
        places.expect(str(number), 0.1)
    assert not places.take(0)


def test_long_jobs_and_unknown_ones_are_no_more_than_always():
    for seconds in (6.0, float("inf")):
        places = Places(waiting=1, seconds=10, most=8)
        for number in range(2):
            assert places.take(0)
            places.expect(str(number), seconds)
        assert not places.take(0)


def test_none_may_wait_where_the_owner_wants_none():
    places = Places(waiting=0, seconds=10, most=8)
    assert places.take(0)
    places.expect("a", 0.1)
    assert not places.take(0)


def test_a_place_that_is_given_back_is_there_again():
    places = Places(waiting=0, seconds=10, most=8)
    assert places.take(0)
    places.expect("a", 1)
    places.free("a")
    assert taken(places) == 1


def test_nobody_gets_a_place_while_they_are_held():
    places = Places(waiting=1, seconds=10, most=8)
    places.hold()
    assert taken(places) == 0
    places.resume()
    assert taken(places) == 2


@pytest.mark.parametrize(
    ("is_held", "change", "is_taken"),
    [(False, Places.free, True), (True, Places.resume, True), (True, Places.close, False)],
)
def test_who_waits_for_a_place_is_told_at_once(
    *, is_held: bool, change: Callable[[Places], None], is_taken: bool
):
    places = Places(waiting=0, seconds=10, most=8)
    if is_held:
        places.hold()
    else:
        places.take()
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(places.take, 60)
        with pytest.raises(TimeoutError):
            answer.result(0.05)
        change(places)
        assert answer.result(5) is is_taken
    assert places.take(0) is False


def test_a_job_that_is_in_hand_already_waits_for_no_place():
    places = Places(waiting=1, seconds=0, most=2)
    places.hold()
    for _ in range(3):
        places.take_anyway()
    places.resume()
    assert taken(places) == 0
    places.free()
    places.free()
    assert taken(places) == 1
