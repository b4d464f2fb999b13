"""Models kept on the device and in main memory for as long as budgets allow, under one mutex."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic

from hordelib.errors import GenerationFailed, ModelMissing, OutOfMemory
from hordelib.files.model_key import FileStamp, ModelKey, size_bytes
from hordelib.memory.budget import MemoryBudget
from hordelib.memory.cached_part import P, Part

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Entry(Generic[P]):
    key: ModelKey
    stamp: FileStamp
    part: P
    holds: int = 0  # it stays in main memory
    loans: int = 0  # it stays on the device

    def insist_on_same_file(self) -> None:
        try:
            is_same = FileStamp.of(self.key.path) == self.stamp
        except ModelMissing:
            is_same = False
        if not is_same:
            raise GenerationFailed(f"{self.key} was changed or removed while a job used it")


@dataclass(slots=True, eq=False)
class _Memory:
    """A budget, and the room in it that was made for somebody and may not be taken up yet."""

    budget: MemoryBudget
    promised_bytes: int = 0

    def spare_bytes(self) -> int:
        return self.budget.spare_bytes() - self.promised_bytes

    def shortfall_bytes(self, needed_bytes: int) -> int:
        return max(0, needed_bytes - self.spare_bytes())


class Held(Generic[P]):
    """A part that stays in memory for as long as `ModelCache.hold` lasts."""

    def __init__(self, cache: ModelCache[P], entry: _Entry[P]):
        self._cache = cache
        self._entry = entry

    @property
    def part(self) -> P:
        return self._entry.part

    @contextmanager
    def lend(self, *, working_bytes: int = 0) -> Generator[None]:
        """The part is on the device with `working_bytes` free beside it until the block ends.

        Raises OutOfMemory, and GenerationFailed where somebody changed the file in the meantime:
        what is mapped of one that was cut off must not be looked at.
        """
        self._entry.insist_on_same_file()
        with self._cache._lend(self._entry, working_bytes):
            yield


class ModelCache(Generic[P]):
    """Lends models out. One on loan stays; idle ones go, least recently used first.

    From the device they go to main memory, from there to nothing. After each the device is asked
    again: what it says counts, not a sum. Files are read outside of the mutex, into room that is
    kept for them, so that a read ahead holds up nobody.

    Args:
        read: makes a part of a file.
        host: main memory.
        device: None where models compute in main memory, and both budgets are one.
        weigh: the most that `read` takes of main memory for a key.
        forget: called after entries were dropped, to give their memory back.
        settle: called once room was made on a card, with the bytes that are about to be taken.
    """

    def __init__(
        self,
        read: Callable[[ModelKey], P],
        host: MemoryBudget,
        device: MemoryBudget | None = None,
        *,
        weigh: Callable[[ModelKey], int] = size_bytes,
        forget: Callable[[], None] = lambda: None,
        settle: Callable[[int], None] = lambda _: None,
    ):
        self._read_file = read
        self._weigh = weigh
        self._forget = forget
        self._settle = settle
        self._host = _Memory(host)
        self._device = _Memory(device) if device else self._host
        self._mutex = threading.Condition(threading.RLock())
        self._entries: dict[ModelKey, _Entry[P]] = {}  # least recently used first
        self._claimed: set[ModelKey] = set()  # about to be read
        self._readers = 0  # that have their room; each of them ends without waiting for another

    @contextmanager
    def hold(self, key: ModelKey) -> Generator[Held[P]]:
        """The part, somewhere in memory until the block ends.

        Raises ModelMissing, what `read` raises, and OutOfMemory when the file does not fit although
        every idle model is gone.
        """
        entry = self._enter(key)
        try:
            yield Held(self, entry)
        finally:
            with self._mutex:
                entry.holds -= 1
                self._mutex.notify_all()

    @contextmanager
    def lend(self, key: ModelKey, *, working_bytes: int = 0) -> Generator[P]:
        """The part, on the device with `working_bytes` free beside it until the block ends.

        Raises what `hold` does. A part that can stream is content with less room for itself.
        """
        with self.hold(key) as held, held.lend(working_bytes=working_bytes):
            yield held.part

    def holds(self, key: ModelKey) -> bool:
        with self._mutex:
            return key in self._entries

    def is_in_memory(self, key: ModelKey) -> bool:
        """Whether it computes, or could at once: it is held, or the whole of it on the device."""
        with self._mutex:
            entry = self._entries.get(key)
            return entry is not None and (bool(entry.holds) or _is_whole_on_device(entry.part))

    @contextmanager
    def undisturbed(self) -> Generator[None]:
        """No other thread moves or drops a part until the block ends; files may still be read."""
        with self._mutex:
            yield

    def spare_bytes(self) -> int:
        """What may still be used of the device, but for what was promised."""
        with self._mutex:
            return self._device.spare_bytes()

    def spare_host_bytes(self) -> int:
        """What may still be used of main memory, but for what was promised."""
        with self._mutex:
            return self._host.spare_bytes()

    def device_bytes(self) -> int:
        """What all parts take of the device now."""
        with self._mutex:
            return sum(entry.part.device_bytes for entry in self._entries.values())

    def room_bytes(self) -> int:
        """What may be used of the device when no part is on it; below 0 where others have it."""
        with self._mutex:
            return self.device_bytes() + self._device.spare_bytes()

    def make_room(self, needed_bytes: int) -> None:
        """Have so many spare bytes on a card, as far as idle parts can go from it."""
        with self._mutex:
            while self._device is not self._host:
                short_bytes = self._device.shortfall_bytes(needed_bytes)
                if not short_bytes or not self._evict_from(self._device, short_bytes):
                    self._settle(needed_bytes)
                    return

    def clear(self) -> None:
        """Drop every idle model."""
        with self._mutex:
            for key in [key for key, entry in self._entries.items() if not entry.holds]:
                self._drop(key)
            self._forget()

    @contextmanager
    def _lend(self, entry: _Entry[P], working_bytes: int) -> Generator[None]:
        memory = self._host if entry.part.computes_in_host else self._device
        with self._mutex:
            entry.loans += 1
            try:
                self._bring(entry, working_bytes, memory)
            except BaseException:
                entry.loans -= 1
                raise
        try:
            yield
        finally:
            with self._mutex:
                entry.loans -= 1
                memory.promised_bytes -= working_bytes
                self._mutex.notify_all()

    def _enter(self, key: ModelKey) -> _Entry[P]:
        """The key's entry, held once more."""
        stamp = FileStamp.of(key.path)
        with self._mutex:
            while key in self._claimed:
                self._mutex.wait()
            entry = self._current(key, stamp)
            if entry is not None:
                entry.holds += 1
                return entry
            self._claimed.add(key)
        return self._read(key, stamp)

    def _current(self, key: ModelKey, stamp: FileStamp) -> _Entry[P] | None:
        """The entry, most recently used from now on; one of a file that is gone is let go."""
        entry = self._entries.pop(key, None)
        if entry is None or entry.stamp != stamp:
            return None
        self._entries[key] = entry
        return entry

    def _read(self, key: ModelKey, stamp: FileStamp) -> _Entry[P]:
        """A new entry, held once. The mutex is free while the file is read."""
        try:
            needed_bytes = self._weigh(key)
            log.info("reading %s into memory", key)
            with self._promised(self._host, needed_bytes, key):
                entry = _Entry(key, stamp, self._read_file(key), holds=1)
            with self._mutex:
                self._entries[key] = entry
        finally:
            with self._mutex:
                self._claimed.discard(key)
                self._mutex.notify_all()
        return entry

    @contextmanager
    def _promised(self, memory: _Memory, needed_bytes: int, key: ModelKey) -> Generator[None]:
        """Room for a file while it is read."""
        with self._mutex:
            self._make_room(memory, needed_bytes, key)
            memory.promised_bytes += needed_bytes
            self._readers += 1
        try:
            yield
        finally:
            with self._mutex:
                memory.promised_bytes -= needed_bytes
                self._readers -= 1
                self._mutex.notify_all()

    def _bring(self, entry: _Entry[P], working_bytes: int, memory: _Memory) -> None:
        """Move a part to where it computes, and promise it its working memory there."""
        part = entry.part
        try:
            self._make_room(memory, part.missing_bytes + working_bytes, entry.key)
        except OutOfMemory:
            if not part.can_stream:
                raise
            self._make_room(memory, working_bytes, entry.key)
        self._make_room(self._host, part.staging_bytes, entry.key)
        if memory is not self._host:
            self._settle(part.missing_bytes + working_bytes)
        part.to_device()
        memory.promised_bytes += working_bytes

    def _make_room(self, memory: _Memory, needed_bytes: int, key: ModelKey) -> None:
        """Evict idle parts until the memory itself reports room that nobody was promised."""
        may_be_returned = memory is self._host  # what was freed lately is not the system's yet
        while (short_bytes := memory.shortfall_bytes(needed_bytes)) > 0:
            entries = len(self._entries)
            if self._evict_from(memory, short_bytes):
                if len(self._entries) < entries:
                    self._forget()  # now that nothing here refers to it any more
                continue
            if needed_bytes <= 0:
                return  # others have taken of the reserve, and nothing more of ours can help
            if may_be_returned:
                self._forget()
                may_be_returned = False
                continue
            if not self._readers:
                raise OutOfMemory(_complaint(key, needed_bytes, short_bytes, memory.budget))
            self._mutex.wait()  # what is being read will be idle, or take less than was thought

    def _evict_from(self, memory: _Memory, short_bytes: int) -> bool:
        """Evict one part from this memory, or of it what is short of room there.

        False: all that is in it is in use.
        """
        if memory is self._device:
            on_device = [each for each in self._entries.values() if _is_idle_on_device(each)]
            if any(each.part.give_back(short_bytes) or self._move(each) for each in on_device):
                return True
        return memory is self._host and self._drop_one()

    def _move(self, entry: _Entry[P]) -> bool:
        """From the device to main memory; where that is full too, to nothing, unless held."""
        while (taken := entry.part.return_bytes) and self._host.shortfall_bytes(taken) > 0:
            if not self._drop_one():
                return not entry.holds and self._drop(entry.key)
            self._forget()
        log.info("moving %s off the device", entry.key)
        entry.part.to_host()
        return True

    def _drop_one(self) -> bool:
        """Drop the idle part that was not used for longest and takes main memory."""
        idle = (
            key for key, entry in self._entries.items() if not entry.holds and entry.part.host_bytes
        )
        key = next(idle, None)
        return key is not None and self._drop(key)

    def _drop(self, key: ModelKey) -> bool:
        log.info("dropping %s from memory", key)
        del self._entries[key]
        return True


def _is_whole_on_device(part: Part) -> bool:
    return part.device_bytes > 0 and not part.missing_bytes


def _is_idle_on_device(entry: _Entry[P]) -> bool:
    return not entry.loans and entry.part.device_bytes > 0


def _complaint(key: ModelKey, needed_bytes: int, short_bytes: int, budget: MemoryBudget) -> str:
    return (
        f"{key} needs {needed_bytes >> 20} MiB, and {short_bytes >> 20} MiB are missing with"
        f" {budget.reserve_bytes >> 20} MiB left free: use a smaller model or lower"
        f" {budget.setting}"
    )
