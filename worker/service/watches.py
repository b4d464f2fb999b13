"""What on this machine makes a worker get out of the way: hours, programs, people, power, heat."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from fnmatch import fnmatchcase
from functools import partial

import psutil

from hordelib.memory.cards import NvmlCard, ask_card
from worker.config.hours import HourSpan, are_open, next_change
from worker.config.keys import BridgeConfig
from worker.errors import WorkerError
from worker.line.pausing import PauseCause, PauseKind, PauseReason
from worker.models.memory_fit import card_shares
from worker.service.pauses import Watch, moment

log = logging.getLogger(__name__)

COOLER_BY = 5  # °C below the limit, so that a card does not go on and off each few seconds
ASK_SECONDS = 3.0  # for a program that says when somebody typed last
INPUT_SECONDS = 10.0  # between two such questions
KEYS = (
    *("serve_hours", "pause_for", "others_on_card", "user_active", "on_battery"),
    "max_card_temperature",
)
_LOGIND = (
    *("busctl", "--system", "get-property", "org.freedesktop.login1", "/org/freedesktop/login1"),
    *("org.freedesktop.login1.Manager", "IdleHint", "IdleSinceHint"),
)

Local = Callable[[float], datetime]


class Watches:
    """Those that the configuration asks for at the moment, and the same ones while it does."""

    def __init__(self, config: BridgeConfig):
        self._config = config
        self._asked: list[object] = []
        self._watches: Sequence[Watch] = ()

    def __call__(self) -> Sequence[Watch]:
        asked = [getattr(self._config.now, key) for key in KEYS]
        if asked != self._asked:
            self._asked, self._watches = asked, watches_of(self._config.now)
        return self._watches


def watches_of(config: BridgeConfig) -> list[Watch]:
    """Those that the configuration asks for."""
    watches: list[Watch] = []
    if config.serve_hours:
        watches.append(Watch(HoursWatch(config.serve_hours), calm_seconds=0))
    if config.pause_for:
        watches.append(Watch(ProgramWatch(config.pause_for)))
    cards = cards_of(config)
    if config.others_on_card:
        watches += [Watch(partial(others_on_card, *card)) for card in cards]
    if config.user_active:
        watches.append(Watch(UserWatch(60 * config.user_active), calm_seconds=0))
    if config.on_battery:
        watches.append(Watch(on_battery))
    if (most := config.max_card_temperature) is not None:
        watches += [Watch(HeatWatch(most, *card), calm_seconds=0) for card in cards]
    return watches


def cards_of(config: BridgeConfig) -> list[tuple[str, str]]:
    """The device's name and the UUID of each card; "" where it is the only one."""
    with suppress(WorkerError):
        shares = card_shares(config)
        if len(shares) > 1:
            return [(share.name, share.card.uuid) for share in shares if share.card]
        if config.devices:
            return [("", share.card.uuid) for share in shares if share.card]
    return [("", "")]


class HoursWatch:
    """A reason outside of these hours.

    Args:
        clock: seconds since 1970; it may be set at any time.
        local: the local time of such a moment.
    """

    def __init__(
        self,
        spans: Sequence[HourSpan],
        clock: Callable[[], float] = time.time,
        local: Local = datetime.fromtimestamp,
    ):
        self._spans = spans
        self._clock = clock
        self._local = local
        self._end: tuple[float, float | None] = (0.0, 0.0)  # since when it is known, and until

    def __call__(self) -> PauseReason | None:
        now = self._clock()
        if are_open(self._spans, self._local(now)):
            self._end = (0.0, 0.0)
            return None
        since, end = self._end
        if end is None or not since <= now < end:
            end = next_change(self._spans, now, self._local)
            self._end = (now, end)
        when = f"; it serves again at {moment(end, now, self._local)}" if end is not None else ""
        told = f"it is outside of serve_hours{when}"
        return PauseReason(PauseCause.serve_hours, told, PauseKind.finish, end)


class ProgramWatch:
    """A reason while one of these programs runs; `*` and `?` are wildcards, in any letter case."""

    def __init__(self, patterns: Sequence[str]):
        self._patterns = tuple(pattern.lower() for pattern in patterns)

    def __call__(self) -> PauseReason | None:
        ours = _own_processes()
        for process in psutil.process_iter():
            if process.pid in ours:
                continue
            with suppress(psutil.Error):
                if self._matches(name := process.name()):
                    told = f"{name!r} runs, which pause_for names"
                    return PauseReason(PauseCause.pause_for, told, PauseKind.at_once)
        return None

    def _matches(self, name: str) -> bool:
        names = {name.lower(), name.lower().removesuffix(".exe")}
        return any(fnmatchcase(each, pattern) for each in names for pattern in self._patterns)


def others_on_card(device: str = "", uuid: str = "") -> PauseReason | None:
    """A reason while a process that is not ours computes on this card.

    Of processes outside of a container, nothing is known there, and they do not count.
    """
    for pid in set(ask_card(uuid, NvmlCard.computing_processes) or ()) - _own_processes():
        with suppress(psutil.Error):
            where = device or "the card"
            told = f"{psutil.Process(pid).name()!r} computes on {where} (others_on_card)"
            kind = PauseKind.at_once
            return PauseReason(PauseCause.others_on_card, told, kind, device=device)
    return None


class UserWatch:
    """A reason until nobody has typed or moved the mouse for so many seconds."""

    def __init__(self, idle_seconds: float):
        self._idle_seconds = idle_seconds
        self._asked_at = float("-inf")
        self._reason: PauseReason | None = None
        self._was_told = False

    def __call__(self) -> PauseReason | None:
        if time.monotonic() - self._asked_at >= INPUT_SECONDS:
            self._reason = self._ask()
            self._asked_at = time.monotonic()
        return self._reason

    def _ask(self) -> PauseReason | None:
        idle = min(_idle_seconds(), default=None)
        if idle is None:
            if not self._was_told:
                log.warning(
                    "user_active has no effect: this system does not say when somebody typed last;"
                    " it needs systemd's logind, or xprintidle under X11"
                )
            self._was_told = True
            return None
        left = self._idle_seconds - idle
        if left <= 0:
            return None
        told = f"somebody uses this machine; it serves {self._idle_seconds / 60:.0f} min after that"
        return PauseReason(PauseCause.user_active, told, PauseKind.at_once)


def _idle_seconds() -> Iterator[float]:
    """Since the last input, by each part of this system that tells."""
    if (answer := _answer_of(_LOGIND)) is not None:
        # Two lines: "b true" and "t 1764550000000000", in microseconds since 1970.
        words = answer.split()
        if len(words) == 4 and words[3].isdigit():
            yield time.time() - int(words[3]) / 1e6 if words[1] == "true" else 0.0
    if "DISPLAY" in os.environ and (answer := _answer_of(("xprintidle",))) is not None:
        with suppress(ValueError):
            yield int(answer) / 1000


def _answer_of(command: Sequence[str]) -> str | None:
    program = shutil.which(command[0])
    if program is None:
        return None
    try:
        told = subprocess.run(
            [program, *command[1:]],
            capture_output=True,
            timeout=ASK_SECONDS,
            check=True,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return told.stdout.decode("utf-8", "replace")


def on_battery() -> PauseReason | None:
    """A reason while the battery gives the power; none where there is no battery."""
    battery = psutil.sensors_battery()
    if battery is None or battery.power_plugged is not False:
        return None
    told = "this machine runs on its battery (on_battery)"
    return PauseReason(PauseCause.on_battery, told, PauseKind.at_once)


class HeatWatch:
    """A reason from so many °C on, until this card is clearly cooler."""

    def __init__(self, most: int, device: str = "", uuid: str = ""):
        self._most = most
        self._device = device
        self._uuid = uuid
        self._is_hot = False

    def __call__(self) -> PauseReason | None:
        now = ask_card(self._uuid, lambda card: card.celsius)
        if now is None:
            return None
        cool = self._most - COOLER_BY
        self._is_hot = now > cool if self._is_hot else now >= self._most
        if not self._is_hot:
            return None
        where = self._device or "the card"
        told = f"{where} has {now} °C; it serves again at {cool} (max_card_temperature)"
        cause, kind = PauseCause.max_card_temperature, PauseKind.rest
        return PauseReason(cause, told, kind, device=self._device)


def _own_processes() -> set[int]:
    this = psutil.Process()
    return {this.pid, *(child.pid for child in this.children(recursive=True))}
