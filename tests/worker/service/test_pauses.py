"""Why a worker pauses: its owner's orders with their ends, and what is seen on the machine."""

from __future__ import annotations

import stat
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from worker.clock import SteadyClock
from worker.line.pausing import PauseCause, PauseKind, PauseReason
from worker.service.orders import Order, Orders
from worker.service.pause_times import PauseEnd, parse_pause
from worker.service.pauses import CALM_SECONDS, Pauses, Watch, moment

NOON = datetime(2026, 3, 4, 12, 0).timestamp()  # a Wednesday
GAME = PauseReason(PauseCause.pause_for, "steam runs", PauseKind.at_once)


class Clocks:
    """Two clocks that agree until one is set."""

    def __init__(self) -> None:
        self.wall, self.elapsed = NOON, 1000.0

    def pass_by(self, seconds: float) -> None:
        self.wall += seconds
        self.elapsed += seconds

    def steady(self) -> SteadyClock:
        return SteadyClock(lambda: self.wall, lambda: self.elapsed)


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
def pauses(tmp_path: Path, clocks: Clocks) -> Pauses:
    return Pauses(Orders(tmp_path), clock=clocks.steady())


def causes(pauses: Pauses) -> list[PauseCause]:
    return [reason.cause for reason in pauses.reasons]


def test_a_pause_of_the_owner_ends_by_itself(pauses: Pauses, clocks: Clocks):
    pauses.pause(NOON + 600)
    assert (pauses.follow(), causes(pauses)) == (Order.pause, [PauseCause.owner])
    assert "until 12:10" in pauses.reasons[0].told
    clocks.pass_by(599)
    assert pauses.follow() is Order.pause
    clocks.pass_by(2)
    assert (pauses.follow(), causes(pauses)) == (Order.serve, [])


def test_it_outlives_the_process_and_ends_at_its_time_all_the_same(tmp_path: Path, clocks: Clocks):
    Pauses(Orders(tmp_path), clock=clocks.steady()).pause(NOON + 600)
    orders = Orders(tmp_path)
    orders.begin()
    later = Pauses(orders, clock=clocks.steady())
    assert later.follow() is Order.pause
    clocks.pass_by(601)
    assert later.follow() is Order.serve


def test_a_restart_leaves_a_pause_as_it_was(tmp_path: Path, clocks: Clocks):
    orders = Orders(tmp_path)
    pauses = Pauses(orders, clock=clocks.steady())
    pauses.pause(NOON + 600)
    orders.give(Order.restart)
    assert pauses.follow() is Order.restart
    orders.begin()
    assert pauses.follow() is Order.pause
    assert "until 12:10" in pauses.reasons[0].told
    orders.give(Order.serve)
    orders.give(Order.restart)
    orders.begin()
    assert pauses.follow() is Order.serve


@pytest.mark.parametrize(("is_span", "doing"), [(True, Order.pause), (False, Order.serve)])
def test_two_hours_are_two_hours_whatever_the_clock_is_set_to(
    pauses: Pauses, clocks: Clocks, is_span: bool, doing: Order
):
    pauses.pause(NOON + 7200, is_span=is_span)
    pauses.follow()
    clocks.wall += 86400
    assert pauses.follow() is doing
    clocks.wall -= 86400
    clocks.pass_by(7201)
    assert pauses.follow() is Order.serve


def test_the_latest_of_two_who_order_counts(tmp_path: Path, pauses: Pauses):
    Orders(tmp_path).give(Order.pause)
    assert pauses.follow() is Order.pause
    pauses.resume()
    assert pauses.follow() is Order.serve
    Orders(tmp_path).give(Order.drain)
    assert pauses.follow() is Order.drain


def test_an_order_within_the_worker_counts_where_nothing_can_be_written(tmp_path: Path):
    pauses = Pauses(Orders(tmp_path / "a file" / "state"))
    (tmp_path / "a file").touch()
    pauses.pause()
    assert (pauses.follow(), causes(pauses)) == (Order.pause, [PauseCause.owner])
    pauses.resume()
    assert pauses.follow() is Order.serve


def test_an_order_that_can_not_be_read_changes_nothing(tmp_path: Path, pauses: Pauses):
    pauses.pause()
    pauses.follow()
    (tmp_path / "order").write_text('{"order": "pause", "until": NaN}')
    assert pauses.follow() is Order.pause
    assert stat.S_IMODE((tmp_path / "order").stat().st_mode) == 0o600


def test_the_word_of_an_earlier_version_is_read(tmp_path: Path, pauses: Pauses):
    (tmp_path / "order").write_text("pause")
    assert pauses.follow() is Order.pause


# ---- what is seen ------------------------------------------------------------------------------


class Seen:
    """What a watch sees, for tests to change."""

    def __init__(self) -> None:
        self.reason: PauseReason | None = None

    def __call__(self) -> PauseReason | None:
        return self.reason


def watching(tmp_path: Path, clocks: Clocks, *looks: Callable[[], PauseReason | None]) -> Pauses:
    watches = [Watch(look) for look in looks]
    return Pauses(Orders(tmp_path), lambda: watches, clocks.steady())


def test_a_reason_has_to_be_gone_for_a_while(tmp_path: Path, clocks: Clocks):
    seen = Seen()
    pauses = watching(tmp_path, clocks, seen)
    pauses.look()
    assert causes(pauses) == []
    seen.reason = GAME
    pauses.look()
    assert pauses.reasons == (GAME,)
    seen.reason = None
    for _ in range(3):  # a game that is started again and again
        clocks.pass_by(CALM_SECONDS - 1)
        pauses.look()
        assert pauses.reasons[0].until == clocks.wall + 1
        seen.reason = GAME
        pauses.look()
        seen.reason = None
    clocks.pass_by(CALM_SECONDS)
    pauses.look()
    assert causes(pauses) == []


def test_a_watch_that_fails_keeps_no_other_from_being_heard(tmp_path: Path, clocks: Clocks):
    def broken() -> PauseReason | None:
        raise ZeroDivisionError

    pauses = watching(tmp_path, clocks, broken, lambda: GAME)
    pauses.look()
    assert pauses.reasons == (GAME,)


def test_the_first_look_is_before_the_first_job(tmp_path: Path, clocks: Clocks):
    pauses = watching(tmp_path, clocks, lambda: GAME)
    with pauses.watched():
        assert pauses.reasons == (GAME,)


def test_resume_ends_the_owners_pause_alone(tmp_path: Path, clocks: Clocks):
    pauses = watching(tmp_path, clocks, lambda: GAME)
    pauses.look()
    pauses.pause()
    pauses.follow()
    assert causes(pauses) == [PauseCause.owner, PauseCause.pause_for]
    pauses.resume()
    pauses.follow()
    assert causes(pauses) == [PauseCause.pause_for]


# ---- an owner's words for an end ---------------------------------------------------------------


def at(day: int, hour: int, minute: int = 0) -> PauseEnd:
    return PauseEnd(datetime(2026, 3, day, hour, minute).timestamp())


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("", PauseEnd(None)),
        ("2h", PauseEnd(NOON + 7200, is_span=True)),
        ("1h30min", PauseEnd(NOON + 5400, is_span=True)),
        ("1 h 30 m", PauseEnd(NOON + 5400, is_span=True)),
        ("45 minutes", PauseEnd(NOON + 2700, is_span=True)),
        ("2 days", PauseEnd(NOON + 2 * 86400, is_span=True)),
        ("until 08:00", at(5, 8)),
        ("until 22:15", at(4, 22, 15)),
        ("until 12", at(5, 12)),
        ("until tomorrow", at(5, 8)),
        ("Until Tomorrow 6:30", at(5, 6, 30)),
        ("until today 18:00", at(4, 18)),
        ("until fri", at(6, 8)),
        ("until wednesday", at(11, 8)),
        ("until wed 18:00", at(4, 18)),
    ],
)
def test_how_long_a_pause_lasts(text: str, end: PauseEnd):
    assert parse_pause(text, NOON) == end


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("2", "such as 2h"),
        ("soon", "such as 2h"),
        ("until", "such as 2h"),
        ("0h", "from a minute to a year"),
        ("99999d", "from a minute to a year"),
        ("until 24:00", "23:59"),
        ("until 8:75", "23:59"),
        ("until blursday", "is not a day"),
        ("until today 9:00", "has passed today"),
        ("2h until 08:00", "such as 2h"),
    ],
)
def test_what_is_no_time_is_told_with_what_is_expected(text: str, told: str):
    with pytest.raises(ValueError, match=told):
        parse_pause(text, NOON)


@pytest.mark.parametrize(
    ("day", "told"),
    [(4, "08:00"), (5, "Thu 08:00"), (10, "Tue 08:00"), (11, "2026-03-11 08:00")],
)
def test_a_moment_is_told_briefly(day: int, told: str):
    assert moment(datetime(2026, 3, day, 8).timestamp(), NOON) == told
