"""A machine with a card, both of which really fill up with what is put into them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from hordelib.errors import ModelBroken
from hordelib.files.model_key import ModelKey
from hordelib.memory.budget import MemoryBudget

KIB = 1024


@dataclass
class SimulatedMemory:
    """Memory of `total_bytes`. Whoever overfills it, or the reserve, is found out afterwards."""

    total_bytes: int
    reserve_bytes: int
    used_bytes: int = 0
    lowest_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        self.lowest_bytes = self.total_bytes
        self._mutex = threading.Lock()

    def take(self, size_bytes: int) -> None:
        with self._mutex:
            self.used_bytes += size_bytes
            self.lowest_bytes = min(self.lowest_bytes, self.free_bytes())

    def free_bytes(self) -> int:
        return self.total_bytes - self.used_bytes

    @property
    def was_kept(self) -> bool:
        """Whether the reserve was free at every moment."""
        return self.lowest_bytes >= self.reserve_bytes

    @property
    def budget(self) -> MemoryBudget:
        return MemoryBudget(self.free_bytes, self.reserve_bytes)


@dataclass(eq=False)
class SimulatedPart:
    """A model that takes up its machine's memory for as long as somebody refers to it."""

    path: Path
    size_bytes: int
    machine: Machine
    can_stream: bool = False
    gives_back: bool = False
    computes_in_host: bool = False
    staging_bytes: int = 0
    is_on_device: bool = False
    given_back_bytes: int = 0  # of those on the device; they are mapped, and take nothing
    borrowers: int = 0

    def __post_init__(self) -> None:
        self.machine.host.take(self.size_bytes)

    def __del__(self) -> None:
        memory = self.machine.device if self.is_on_device else self.machine.host
        memory.take(self.given_back_bytes - self.size_bytes)

    @property
    def host_bytes(self) -> int:
        return 0 if self.is_on_device else self.size_bytes

    @property
    def device_bytes(self) -> int:
        return self.size_bytes - self.given_back_bytes if self.is_on_device else 0

    @property
    def missing_bytes(self) -> int:
        return self.size_bytes - self.device_bytes

    @property
    def return_bytes(self) -> int:
        return self.size_bytes if self.is_on_device else 0

    def give_back(self, size_bytes: int) -> bool:
        if not self.gives_back or size_bytes >= self.device_bytes:
            return False
        assert not self.borrowers, "taken from somebody who works with it"
        self.machine.device.take(-size_bytes)
        self.given_back_bytes += size_bytes
        return True

    def to_device(self) -> None:
        self.machine.device.take(self.given_back_bytes)
        self.given_back_bytes = 0
        if not self.is_on_device:
            self.machine.host.take(self.staging_bytes)
            self.machine.host.take(-self.staging_bytes)
            self.machine.device.take(self.size_bytes)
            self.is_on_device = True
            self.machine.host.take(-self.size_bytes)

    def to_host(self) -> None:
        assert not self.borrowers, "evicted while somebody works with it"
        self.machine.host.take(self.size_bytes)
        self.is_on_device = False
        self.machine.device.take(self.given_back_bytes - self.size_bytes)
        self.given_back_bytes = 0


@dataclass
class Machine:
    host: SimulatedMemory
    device: SimulatedMemory
    reads: list[str] = field(default_factory=list[str])
    broken: set[str] = field(default_factory=set[str])
    giving_back: set[str] = field(default_factory=set[str])

    def read(self, key: ModelKey) -> SimulatedPart:
        self.reads.append(key.path.name)
        if key.path.name in self.broken:
            raise ModelBroken(f"{key.path.name} can't be loaded")
        gives_back = key.path.name in self.giving_back
        return SimulatedPart(key.path, key.path.stat().st_size, self, gives_back=gives_back)


MakeFile = Callable[[str, int], ModelKey]


def file_maker(folder: Path) -> MakeFile:
    """Makes files of so many KiB; there is nothing in them."""

    def make(name: str, kib: int) -> ModelKey:
        path = folder / name
        with path.open("wb") as file:
            file.truncate(kib * KIB)
        return ModelKey("checkpoint", path)

    return make


def run_threads(work: Callable[[int], None], threads: int, seconds: float) -> None:
    """Run `work(seed)` in each thread to its end. Fails where one raises, or hangs (a deadlock)."""
    failures: list[BaseException] = []

    def guarded(seed: int) -> None:
        try:
            work(seed)
        except BaseException as error:  # noqa: BLE001 - a thread's error has to reach the test
            failures.append(error)

    started = [
        threading.Thread(target=guarded, args=(seed,), daemon=True) for seed in range(threads)
    ]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join(seconds)
    assert not failures, failures
    assert not any(thread.is_alive() for thread in started), "deadlock"
