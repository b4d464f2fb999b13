"""What makes a worker get out of the way: real programs, a simulated driver, clocks that change."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from zoneinfo import ZoneInfo

import psutil
import pytest

from tests.support.owner import wait_for
from tests.support.simulated_nvml import SimulatedCard, SimulatedNvml
from tests.support.simulated_sensors import SimulatedSensors
from worker.config.hours import HourSpan, are_open, next_change
from worker.config.keys import BridgeConfig
from worker.line.pausing import PauseCause, PauseKind
from worker.service.card_power import FILE, limited_power
from worker.service.watches import (
    HeatWatch,
    HoursWatch,
    ProgramWatch,
    UserWatch,
    cards_of,
    on_battery,
    others_on_card,
    watches_of,
)

BERLIN = ZoneInfo("Europe/Berlin")
NIGHTS = (HourSpan.parse("mon-fri 22:00-07:00"), HourSpan.parse("sat-sun"))


def berlin(at: float) -> datetime:
    return datetime.fromtimestamp(at, BERLIN)


def moment(text: str, fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN, fold=fold).timestamp()


# ---- hours -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("when", "is_open"),
    [
        ("2026-03-02 21:59", False),  # a Monday
        ("2026-03-02 22:00", True),
        ("2026-03-03 06:59", True),
        ("2026-03-03 07:00", False),
        ("2026-03-02 06:00", False),  # the night of Sunday is nobody's
        ("2026-03-07 12:00", True),  # a Saturday
        ("2026-03-09 00:00", False),
    ],
)
def test_hours_go_over_midnight_and_weeks(when: str, is_open: bool):
    assert are_open(NIGHTS, datetime.fromisoformat(when)) is is_open


@pytest.mark.parametrize(
    "text",
    [
        "",
        "mon-fri 22:00",
        "25:00-26:00",
        "08:60-09:00",
        "08:00-08:00",
        "blu 08:00-09:00",
        "8-9",
        "x",
    ],
)
def test_what_are_no_hours_is_refused(text: str):
    with pytest.raises(ValueError):  # noqa: PT011 - the configuration tells what it expects
        HourSpan.parse(text)


@pytest.mark.parametrize(
    ("text", "now", "change"),
    [
        ("sat-sun", "2026-03-02 10:00", "2026-03-07 00:00"),
        ("22:00-07:00", "2026-03-28 23:00", "2026-03-29 07:00"),  # an hour is missing: 7 hours
        ("22:00-07:00", "2026-10-24 23:00", "2026-10-25 07:00"),  # one comes twice: 9 hours
        ("01:00-02:30", "2026-03-29 01:30", "2026-03-29 03:00"),  # 02:30 does not come
        ("mon-sun 00:00-24:00", "2026-03-02 10:00", None),
    ],
)
def test_the_next_change_is_by_the_clock_on_the_wall(text: str, now: str, change: str | None):
    found = next_change((HourSpan.parse(text),), moment(now), berlin)
    assert found == (moment(change) if change else None)


def test_hours_tell_when_they_begin_and_follow_a_clock_that_jumps():
    now = moment("2026-03-02 10:00")
    watch = HoursWatch(NIGHTS, lambda: now, berlin)
    reason = watch()
    assert reason is not None
    assert reason.until == moment("2026-03-02 22:00")
    assert "it serves again at 22:00" in reason.told
    now = moment("2026-03-02 23:00")
    assert watch() is None
    now = moment("2026-01-01 12:00")  # a Thursday, long before
    assert (reason := watch()) is not None
    assert reason.until == moment("2026-01-01 22:00")


# ---- programs ----------------------------------------------------------------------------------


@contextmanager
def program(folder: Path, name: str) -> Generator[int]:
    """One of this name, which is no child of ours."""
    copy = folder / name
    shutil.copy(shutil.which("sleep") or "/bin/sleep", copy)
    shell = subprocess.run(
        ["sh", "-c", '"$0" 60 >/dev/null 2>&1 & echo $!', str(copy)],
        capture_output=True, check=True, text=True,
    )  # fmt: skip
    pid = int(shell.stdout)
    try:
        wait_for(lambda: psutil.Process(pid).name() == name, 30, every=0.01)
        yield pid
    finally:
        psutil.Process(pid).kill()


@pytest.mark.parametrize("pattern", ["dreamgame*", "DREAMGAME", "dream?ame"])
def test_a_program_is_found_by_its_name(tmp_path: Path, pattern: str):
    watch = ProgramWatch([pattern])
    assert watch() is None
    with program(tmp_path, "dreamgame.exe"):
        assert (reason := watch()) is not None
        assert reason.kind is PauseKind.at_once
        assert reason.told == "'dreamgame.exe' runs, which pause_for names"
    wait_for(lambda: watch() is None, 30)


def test_the_worker_and_its_children_are_no_reason():
    with subprocess.Popen(["sleep", "60"]) as child:
        own = [psutil.Process().name(), psutil.Process(child.pid).name()]
        ours = (os.getpid(), child.pid)
        others = {p.info["name"] for p in psutil.process_iter(["name"]) if p.pid not in ours}
        assert ProgramWatch([name for name in own if name not in others])() is None
        child.kill()


# ---- the card ----------------------------------------------------------------------------------


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> SimulatedSensors:
    card = SimulatedSensors()
    card.install(monkeypatch)
    return card


def test_another_process_on_the_card_is_a_reason_and_ours_are_none(
    tmp_path: Path, nvml: SimulatedSensors
):
    with subprocess.Popen(["sleep", "60"]) as child:
        nvml.computing = [os.getpid(), child.pid, 4_000_000_000]  # and one of nobody's here
        assert others_on_card() is None
        child.kill()
    with program(tmp_path, "trainer") as pid:
        nvml.computing.append(pid)
        assert (reason := others_on_card()) is not None
        assert reason.told == "'trainer' computes on the card (others_on_card)"


def test_a_hot_card_rests_until_it_is_clearly_cooler(nvml: SimulatedSensors):
    watch = HeatWatch(80)
    told: list[bool] = []
    for celsius in (79, 80, 78, 76, 75, 79):
        nvml.celsius = celsius
        told.append((reason := watch()) is not None and reason.kind is PauseKind.rest)
    assert told == [False, True, True, True, False, False]


def test_each_of_several_cards_is_watched_by_itself(monkeypatch: pytest.MonkeyPatch):
    hot = SimulatedCard("RTX 4090", "GPU-1111", celsius=90)
    busy = SimulatedCard("RTX 4090", "GPU-2222", users={os.getppid(): 1})
    SimulatedNvml([SimulatedCard("RTX 4090", "GPU-0000"), hot, busy]).install(monkeypatch)
    keys = {"api_key": "k" * 22, "dreamer_name": "w", "max_card_temperature": 80}
    config = BridgeConfig.model_validate({**keys, "others_on_card": True})
    reasons = [watch.look() for watch in watches_of(config)]
    assert [(it.cause, it.device) for it in reasons if it] == [
        (PauseCause.others_on_card, "card 2 (RTX 4090)"),
        (PauseCause.max_card_temperature, "card 1 (RTX 4090)"),
    ]


def test_a_limit_of_power_is_put_back(tmp_path: Path, nvml: SimulatedSensors):
    with limited_power(lambda: 200, tmp_path):
        assert nvml.milliwatts == 200_000
    assert nvml.milliwatts == 300_000
    assert not (tmp_path / FILE).exists()


def test_each_of_several_cards_gets_the_limit_and_its_own_one_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    left = SimulatedCard("RTX 4090", "GPU-0000", milliwatts=320_000)
    right = SimulatedCard("RTX 3060", "GPU-1111", milliwatts=170_000)
    nvml = SimulatedNvml([left, right])
    nvml.install(monkeypatch)
    cards = cards_of(BridgeConfig.model_validate({"api_key": "k" * 22, "dreamer_name": "w"}))
    with limited_power(lambda: 150, tmp_path, cards):
        assert (left.milliwatts, right.milliwatts) == (150_000, 150_000)
        nvml.cards.remove(right)
    assert (left.milliwatts, right.milliwatts) == (320_000, 150_000)
    assert "own limit of GPU-1111, 170 W, can't be put back" in caplog.text
    nvml.cards.append(right)
    with limited_power(lambda: None, tmp_path, cards):
        assert right.milliwatts == 170_000, "the next life puts it back"
    assert not (tmp_path / FILE).exists()


@pytest.mark.parametrize("watts", [None, 250])
def test_what_a_killed_worker_has_left_is_put_back(
    tmp_path: Path, nvml: SimulatedSensors, watts: int | None
):
    (tmp_path / FILE).write_text("280000")
    nvml.milliwatts = 200_000
    with limited_power(lambda: watts, tmp_path):
        assert nvml.milliwatts == (250_000 if watts else 280_000)
    assert nvml.milliwatts == 280_000


@pytest.mark.parametrize(
    ("watts", "is_allowed", "told"),
    [(200, False, "sudo nvidia-smi -pl 200"), (20, True, "takes 100 to 350 W")],
)
def test_a_limit_that_is_refused_is_told(
    tmp_path: Path,
    nvml: SimulatedSensors,
    caplog: pytest.LogCaptureFixture,
    watts: int,
    is_allowed: bool,
    told: str,
):
    nvml.is_allowed = is_allowed
    with limited_power(lambda: watts, tmp_path):
        assert nvml.milliwatts == 300_000
    assert told in caplog.text
    assert len(caplog.records) == 1
    assert not (tmp_path / FILE).exists()


# ---- people and power --------------------------------------------------------------------------


def say(folder: Path, program: str, text: str, patch: pytest.MonkeyPatch) -> None:
    """Have the system's own program, found in PATH first, answer so."""
    file = folder / program
    file.write_text(f"#!/bin/sh\nprintf '{text}'\n")
    file.chmod(0o755)
    patch.setenv("PATH", f"{folder}:/usr/bin:/bin")


@pytest.mark.parametrize(
    ("is_idle", "minutes_ago", "is_reason"),
    [("false", 0, True), ("true", 3, True), ("true", 11, False)],
)
def test_logind_tells_when_somebody_typed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    is_idle: str,
    minutes_ago: int,
    is_reason: bool,
):
    since = int((time.time() - 60 * minutes_ago) * 1e6)
    say(tmp_path, "busctl", f"b {is_idle}\\nt {since}\\n", monkeypatch)
    monkeypatch.delenv("DISPLAY", raising=False)
    assert (UserWatch(600)() is not None) is is_reason


def test_x11_tells_when_somebody_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    say(tmp_path, "busctl", "", monkeypatch)
    say(tmp_path, "xprintidle", "1200", monkeypatch)
    monkeypatch.setenv("DISPLAY", ":0")
    assert UserWatch(600)() is not None
    assert UserWatch(1)() is None


def test_a_system_that_does_not_tell_is_named_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    say(tmp_path, "busctl", "Failed to connect", monkeypatch)
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.setattr("worker.service.watches.INPUT_SECONDS", 0)
    watch = UserWatch(600)
    assert (watch(), watch()) == (None, None)
    assert caplog.text.count("user_active has no effect") == 1


@pytest.mark.parametrize(("plugged", "is_reason"), [(True, False), (False, True), (None, False)])
def test_a_battery_that_gives_the_power_is_a_reason(
    monkeypatch: pytest.MonkeyPatch, plugged: bool | None, is_reason: bool
):
    battery = SimpleNamespace(power_plugged=plugged)
    monkeypatch.setattr(psutil, "sensors_battery", lambda: battery, raising=False)
    assert (on_battery() is not None) is is_reason
