"""Sees what deserves a notice: each once, until it is over and begins anew, over restarts too."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from hordelib.files.json_file import JsonFile
from hordelib.files.whole_files import write_whole
from worker.command_line import LAUNCHER
from worker.config.keys import BridgeConfig
from worker.config.values import NoticeKind
from worker.errors import DocumentMissing
from worker.line.trouble import without_numbers
from worker.models.files.on_disk import DISK_FLOOR_BYTES, size_text
from worker.service.orders import MAINTENANCE, SERVING
from worker.service.overview import Overview
from worker.service.releases import Release

FILE = "notices.json"  # in the state folder
MOST_TOLD = 500  # things that are known to have been told
HOUR = 3600.0
WELL_SECONDS = 600.0  # of serving, until a new stop is told although it is like an earlier one
WITHDRAWN_SECONDS = 300.0  # a file that is just being replaced is back by then
ASK_SECONDS = HOUR  # between two questions to the network
ROOMY_BYTES = DISK_FLOOR_BYTES * 3 // 2  # the disk is well again from here on

_TOLD = TypeAdapter(list[str])


@dataclass(frozen=True, slots=True)
class Notice:
    """What the owner is written to about. `subject` tells several of a kind apart."""

    kind: NoticeKind
    title: str
    told: str
    subject: str = ""

    @property
    def key(self) -> str:
        return f"{self.kind.value} {self.subject}".strip()

    @property
    def body(self) -> str:
        """With how to hear no more of it."""
        quiet = f'bridgeData.yaml with notify_skip: ["{self.kind.value}"] silences these notices.'
        return f"{self.told}\n\n{quiet}"


@dataclass(frozen=True, slots=True)
class Seen:
    """The running worker, as far as notices look at it."""

    overview: Callable[[], Overview]
    withdrawn: Callable[[], Mapping[str, str]]
    """Models that are not offered any more, each with the reason."""
    free_bytes: Callable[[], int]
    """Of the disk of the models. Raises OSError."""
    idle_reason: Callable[[], str]
    """Why none of the horde's requests fits; "" where it does not say."""
    queues: Callable[[], Mapping[str, float]]
    """What waits for each model. Raises DocumentMissing."""
    newest: Callable[[], Release | None]
    """The newest release, if it is newer than this one. Raises DocumentMissing."""


class Attention:
    """For one thread, but for `stopped`, which comes once nobody looks any more.

    `clock` is in seconds, and never set.
    """

    def __init__(self, config: BridgeConfig, state: Path, clock: Callable[[], float]):
        self._config = config
        self._clock = clock
        self._file = JsonFile(state / FILE, _TOLD, write_to=write_whole)
        self._told = self._file.read() or []
        self._counted = 0  # images that have ended in this life
        self._idle_since = clock()
        self._asked = dict.fromkeys(NoticeKind, float("-inf"))
        self._well_since: float | None = None
        self._withdrawn_since: dict[str, float] = {}

    def look(self, seen: Seen) -> list[Notice]:
        """What is new."""
        now, overview = self._clock(), seen.overview()
        found = (
            *self._maintenance(overview),
            *self._disk(seen),
            *self._no_jobs(overview, seen, now),
            *self._withdrawals(overview, seen, now),
            *self._new_version(seen, now),
        )
        self._forget_stops(overview, now)
        return [notice for notice in found if self._is_new(notice)]

    def stopped(self, why: str) -> list[Notice]:
        """The worker ends by an error: a notice, unless it has ended so before."""
        told = f"It ended by itself: {why}\n\n{LAUNCHER} check sees what is wrong."
        notice = Notice(NoticeKind.stopped, "stopped by an error", told, without_numbers(why)[:200])
        return [notice] if self._is_new(notice) else []

    def untold(self, notice: Notice) -> None:
        """It has reached nobody: the next one like it is new."""
        self._forget(lambda each: each == notice.key)

    def _is_new(self, notice: Notice) -> bool:
        if notice.kind in self._config.now.notify_skip or notice.key in self._told:
            return False
        self._told = [*self._told, notice.key][-MOST_TOLD:]
        self._file.keep(self._told)
        return True

    def _over(self, kind: NoticeKind, subject: str = "") -> None:
        key = Notice(kind, "", "", subject).key
        self._forget(lambda each: each == key)

    def _forget(self, is_over: Callable[[str], bool]) -> None:
        left = [each for each in self._told if not is_over(each)]
        if left != self._told:
            self._told = left
            self._file.keep(left)

    # ---- what there is to see ----------------------------------------------------------------

    def _maintenance(self, overview: Overview) -> Iterator[Notice]:
        if overview.doing == MAINTENANCE:
            told = f"The horde gives this worker no jobs but your own. {overview.why}"
            yield Notice(NoticeKind.maintenance, "in maintenance", told.strip())
        elif overview.doing == SERVING:
            self._over(NoticeKind.maintenance)

    def _disk(self, seen: Seen) -> Iterator[Notice]:
        try:
            free_bytes = seen.free_bytes()
        except OSError:
            return
        if free_bytes < DISK_FLOOR_BYTES:
            told = (
                f"{size_text(free_bytes)} are free on the disk of the models. Nothing is downloaded"
                f" while there is less than {size_text(DISK_FLOOR_BYTES)}.\n\n"
                f"{LAUNCHER} models disk shows what takes the room."
            )
            yield Notice(NoticeKind.disk, "the disk is nearly full", told)
        elif free_bytes >= ROOMY_BYTES:
            self._over(NoticeKind.disk)

    def _no_jobs(self, overview: Overview, seen: Seen, now: float) -> Iterator[Notice]:
        counted = overview.images + overview.failed
        has_worked = overview.jobs or counted != self._counted
        if has_worked or overview.doing != SERVING or overview.why:
            self._idle_since, self._counted = now, counted
        if has_worked:
            self._over(NoticeKind.no_jobs)
        if now - self._idle_since < self._config.now.notify_no_jobs_hours * HOUR:
            return
        if not self._may_ask(NoticeKind.no_jobs, now):
            return
        try:
            queues = seen.queues()
        except DocumentMissing:
            return
        if waiting := sorted(name for name in overview.models if queues.get(name)):
            why = seen.idle_reason()
            hours = (now - self._idle_since) / HOUR
            told = (
                f"No job has come for {hours:.0f} hours, although requests wait for"
                f" {', '.join(waiting[:10])}.{f' The horde says: {why}.' if why else ''}"
            )
            yield Notice(NoticeKind.no_jobs, "no jobs", told)

    def _withdrawals(self, overview: Overview, seen: Seen, now: float) -> Iterator[Notice]:
        withdrawn = seen.withdrawn()
        for name in overview.models:
            if name not in withdrawn:
                self._withdrawn_since.pop(name, None)
                self._over(NoticeKind.model_withdrawn, name)
        for name, why in withdrawn.items():
            if now - self._withdrawn_since.setdefault(name, now) >= WITHDRAWN_SECONDS:
                told = f"{name} is not offered any more: {why}"
                yield Notice(NoticeKind.model_withdrawn, f"{name} is withdrawn", told, name)

    def _new_version(self, seen: Seen, now: float) -> Iterator[Notice]:
        if not self._may_ask(NoticeKind.new_version, now):
            return
        try:
            newest = seen.newest()
        except DocumentMissing:
            return
        if newest is not None:
            yield Notice(
                NoticeKind.new_version,
                f"version {newest.version} is there",
                f"What is new, and how to get it: {newest.link}",
                newest.version,
            )

    def _may_ask(self, kind: NoticeKind, now: float) -> bool:
        """Nobody is asked for what would not be told."""
        is_due = kind not in self._config.now.notify_skip and now - self._asked[kind] >= ASK_SECONDS
        if is_due:
            self._asked[kind] = now
        return is_due

    def _forget_stops(self, overview: Overview, now: float) -> None:
        if overview.doing != SERVING:
            self._well_since = None
        elif self._well_since is None:
            self._well_since = now
        elif now - self._well_since >= WELL_SECONDS:
            self._forget(lambda each: each.startswith(NoticeKind.stopped.value))
