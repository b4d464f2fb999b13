from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest

from hordelib.errors import ModelMissing, OutOfMemory
from hordelib.model_cache import MemoryBudget, ModelCache, ModelKey

KIB = 1024


@dataclass(eq=False)
class Loaded:
    """A model that takes up its machine's memory for as long as somebody refers to it."""

    path: Path
    machine: Machine

    def __post_init__(self) -> None:
        self.machine.used_bytes += self.path.stat().st_size

    def __del__(self) -> None:
        self.machine.used_bytes -= self.path.stat().st_size


@dataclass
class Machine:
    """Memory of `total_bytes` that really fills up with what is loaded into it."""

    total_bytes: int
    used_bytes: int = 0
    loads: list[str] = field(default_factory=list[str])

    def free_bytes(self) -> int:
        return self.total_bytes - self.used_bytes

    def load(self, key: ModelKey) -> Loaded:
        self.loads.append(key.path.name)
        return Loaded(key.path, self)


@pytest.fixture
def machine() -> Machine:
    return Machine(1000 * KIB)


@pytest.fixture
def cache(machine: Machine) -> ModelCache[Loaded]:
    budget = MemoryBudget(machine.free_bytes, reserve_bytes=100 * KIB)
    return ModelCache(machine.load, budget)


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str, int], ModelKey]:
    def make(name: str, kib: int) -> ModelKey:
        path = tmp_path / name
        path.write_bytes(bytes(kib * KIB))
        return ModelKey("checkpoint", path)

    return make


def use(cache: ModelCache[Loaded], *keys: ModelKey) -> None:
    for key in keys:
        with cache.lend(key) as model:
            assert model.path == key.path


def test_least_recently_used_goes_first(
    cache: ModelCache[Loaded], machine: Machine, file: Callable[[str, int], ModelKey]
):
    a, b, c = file("a", 400), file("b", 400), file("c", 300)
    use(cache, a, b, a, c, a)
    assert machine.loads == ["a", "b", "c"]
    assert [cache.holds(key) for key in (a, b, c)] == [True, False, True]


def test_a_model_on_loan_is_never_dropped(
    cache: ModelCache[Loaded], file: Callable[[str, int], ModelKey]
):
    a = file("a", 600)
    with cache.lend(a):
        with (
            pytest.raises(OutOfMemory, match=r"300 MiB|MiB are missing"),
            cache.lend(file("b", 600)),
        ):
            pass
        cache.clear()
        assert cache.holds(a)


def test_what_other_programs_use_counts(
    cache: ModelCache[Loaded], machine: Machine, file: Callable[[str, int], ModelKey]
):
    a, b = file("a", 300), file("b", 300)
    use(cache, a)
    machine.used_bytes += 350 * KIB  # a game starts
    use(cache, b)
    assert not cache.holds(a)


def test_a_missing_file_is_no_entry(cache: ModelCache[Loaded], tmp_path: Path):
    gone = ModelKey("checkpoint", tmp_path / "gone")
    with pytest.raises(ModelMissing, match="gone"), cache.lend(gone):
        pass
    assert not cache.holds(gone)


def test_many_threads_never_exceed_the_budget(
    cache: ModelCache[Loaded], machine: Machine, file: Callable[[str, int], ModelKey]
):
    keys = [file(str(i), 80 * (i + 1)) for i in range(5)]
    lowest = [machine.free_bytes()]

    def work(seed: int) -> None:
        random = Random(seed)
        for _ in range(200):
            with suppress(OutOfMemory), cache.lend(random.choice(keys)):
                lowest[0] = min(lowest[0], machine.free_bytes())

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert lowest[0] >= 100 * KIB
    assert len(machine.loads) > len(keys)  # the budget was felt
