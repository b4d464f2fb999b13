from __future__ import annotations

from tests.support.sandbox_client import MovableClock
from worker.page.access import (
    ALL_TRIES,
    MOST_ADDRESSES,
    MOST_SESSIONS,
    SESSION_SECONDS,
    TRIES,
    TRY_SECONDS,
    Sessions,
    Tries,
    fits,
    hashed,
    is_hash,
)


def test_a_hash_fits_its_password_alone_and_is_another_each_time():
    kept = hashed("pässword")
    assert fits("pässword", kept)
    assert not fits("password", kept)
    assert kept != hashed("pässword")
    assert is_hash(kept)
    for other in ("", "pässword", "scrypt:1:2:3", kept[:-4], kept.replace("32768", "2147483648")):
        assert not is_hash(other)
        assert not fits("pässword", other)


def test_a_session_ends_and_the_idle_one_makes_way():
    clock = MovableClock()
    sessions = Sessions(clock)
    first, second = sessions.begin(), sessions.begin()
    for _ in range(MOST_SESSIONS - 2):
        sessions.begin()
    assert sessions.has(first)
    sessions.begin()
    assert sessions.has(first)
    assert not sessions.has(second)
    assert not sessions.has("")
    clock.move(SESSION_SECONDS + 1)
    assert not sessions.has(first)


def test_wrong_passwords_of_one_household_do_not_lock_others_out():
    clock = MovableClock()
    tries = Tries(clock)
    for number in range(TRIES):
        assert not tries.wait_seconds(f"2001:db8::{number:x}")
        tries.begin(f"2001:db8::{number:x}")
    assert tries.wait_seconds("2001:db8::ffff") > 0
    assert not tries.wait_seconds("2001:db8:0:1::1")
    assert not tries.wait_seconds("192.0.2.1")
    clock.move(TRY_SECONDS + 1)
    assert not tries.wait_seconds("2001:db8::1")


def test_many_addresses_together_are_limited_in_tries_and_memory():
    tries = Tries(MovableClock())
    for number in range(2 * MOST_ADDRESSES):
        tries.begin(f"10.0.{number // 250}.{number % 250}")
    assert tries.wait_seconds("192.0.2.1") > 0
    assert len(tries._at) == MOST_ADDRESSES
    assert len(tries._all) == ALL_TRIES


def test_the_right_password_is_no_try():
    tries = Tries(MovableClock())
    for _ in range(ALL_TRIES + 1):
        assert not tries.wait_seconds("192.0.2.1")
        tries.begin("192.0.2.1")
        tries.was_right("192.0.2.1")
