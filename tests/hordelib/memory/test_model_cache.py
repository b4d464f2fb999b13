"""The cache on a simulated machine: who is evicted, and what never happens under load."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest

from hordelib.errors import ModelBroken, ModelMissing, OutOfMemory
from hordelib.files.model_key import ModelKey
from hordelib.memory.cache import ModelCache
from hordelib.memory.loans import DeviceLoans
from tests.support.simulated_device import (
    KIB,
    Machine,
    MakeFile,
    SimulatedMemory,
    SimulatedPart,
    file_maker,
    run_threads,
)

Cache = ModelCache[SimulatedPart]


@pytest.fixture
def machine() -> Machine:
    return Machine(
        host=SimulatedMemory(1000 * KIB, reserve_bytes=100 * KIB),
        device=SimulatedMemory(700 * KIB, reserve_bytes=100 * KIB),
    )


@pytest.fixture
def cache(machine: Machine) -> Cache:
    return ModelCache(machine.read, machine.host.budget, machine.device.budget)


@pytest.fixture
def file(tmp_path: Path) -> MakeFile:
    return file_maker(tmp_path)


def use(cache: Cache, *keys: ModelKey, working_bytes: int = 0) -> None:
    for key in keys:
        with cache.lend(key, working_bytes=working_bytes) as part:
            assert part.path == key.path
            assert part.is_on_device


def where(cache: Cache, key: ModelKey) -> str:
    if not cache.holds(key):
        return "nowhere"
    with cache.hold(key) as held:
        return "device" if held.part.is_on_device else "host"


def test_idle_models_go_from_the_device_to_main_memory_to_nothing(cache: Cache, file: MakeFile):
    keys = [file(name, 400) for name in "abc"]
    use(cache, *keys)
    assert [where(cache, key) for key in keys] == ["nowhere", "host", "device"]


def test_least_recently_used_goes_first(cache: Cache, machine: Machine, file: MakeFile):
    a, b, c = file("a", 250), file("b", 250), file("c", 200)
    use(cache, a, b, a, c)
    assert [where(cache, key) for key in (a, b, c)] == ["device", "host", "device"]
    assert machine.reads == ["a", "b", "c"]


def test_only_what_is_short_of_room_leaves_the_device_and_comes_back(
    cache: Cache, machine: Machine, file: MakeFile
):
    machine.giving_back = {"a"}
    a, b, c = file("a", 400), file("b", 150), file("c", 100)
    use(cache, a, b)
    use(cache, c, working_bytes=20 * KIB)
    with cache.hold(a) as held:
        assert held.part.device_bytes == 330 * KIB
    assert [where(cache, key) for key in (b, c)] == ["device", "device"]
    use(cache, a)
    assert machine.device.was_kept
    assert [where(cache, key) for key in (b, c)] == ["host", "device"]
    with cache.hold(a) as held:
        assert held.part.device_bytes == 400 * KIB


def test_a_model_on_loan_stays_on_the_device(cache: Cache, file: MakeFile):
    a, b = file("a", 350), file("b", 350)
    with cache.lend(a) as lent:
        with pytest.raises(OutOfMemory, match=r"b \(checkpoint\) needs .* lower ram_to_leave_free"):
            use(cache, b)
        cache.clear()
        assert lent.is_on_device
    use(cache, b)
    assert where(cache, a) == "host"


def test_a_model_that_is_held_may_leave_the_device_but_not_memory(cache: Cache, file: MakeFile):
    a, b, c = file("a", 400), file("b", 400), file("c", 400)
    with cache.hold(a) as held:
        use(cache, a, b)
        assert not held.part.is_on_device
        use(cache, c)
        assert [where(cache, key) for key in (a, b, c)] == ["host", "nowhere", "device"]


def test_working_memory_stays_free_beside_a_loan(cache: Cache, machine: Machine, file: MakeFile):
    a, b = file("a", 250), file("b", 250)
    use(cache, a)
    with cache.lend(b, working_bytes=200 * KIB):
        assert where(cache, a) == "host"
        with pytest.raises(OutOfMemory):  # it would fit, were nothing promised to the other
            use(cache, a)
        machine.device.take(200 * KIB)
        machine.device.take(-200 * KIB)
    assert machine.device.was_kept


def test_what_was_freed_and_not_returned_yet_counts_as_room(machine: Machine, file: MakeFile):
    machine.host.take(700 * KIB)
    cache = Cache(
        machine.read,
        machine.host.budget,
        machine.device.budget,
        forget=lambda: machine.host.take(-machine.host.used_bytes),
    )
    use(cache, file("a", 400))
    assert machine.host.was_kept


def test_what_can_stream_needs_room_for_its_work_alone(cache: Cache, file: MakeFile):
    large = file("large", 800)
    with cache.hold(large) as held:
        held.part.can_stream = True
        with cache.lend(large, working_bytes=300 * KIB):
            pass
        with pytest.raises(OutOfMemory), cache.lend(large, working_bytes=700 * KIB):
            pass


def test_what_the_way_to_the_device_takes_of_main_memory_is_made_room_for(
    cache: Cache, machine: Machine, file: MakeFile
):
    idle, converted = file("idle", 500), file("converted", 300)
    with cache.hold(idle):
        pass
    with cache.hold(converted) as held:
        held.part.staging_bytes = 200 * KIB
        with held.lend():
            assert not cache.holds(idle)
    assert machine.host.was_kept


def test_nobody_moves_or_drops_models_while_they_are_not_to_be_disturbed(
    cache: Cache, file: MakeFile
):
    a = file("a", 100)
    use(cache, a)
    other = threading.Thread(target=cache.clear, daemon=True)
    with cache.undisturbed():
        other.start()
        other.join(0.2)
        assert other.is_alive()
        assert where(cache, a) == "device"
    other.join(20)
    assert not cache.holds(a)


def test_room_is_made_as_far_as_idle_models_can_go(cache: Cache, machine: Machine, file: MakeFile):
    a, b, c = (file(name, 150) for name in "abc")
    use(cache, a, b)
    with cache.lend(c):
        cache.make_room(200 * KIB)
        assert [where(cache, key) for key in (a, b, c)] == ["host", "device", "device"]
        cache.make_room(10_000 * KIB)
        assert [where(cache, key) for key in (a, b, c)] == ["host", "host", "device"]
    assert machine.device.was_kept


def test_models_that_compute_in_main_memory_make_no_room_there(machine: Machine, file: MakeFile):
    cache: Cache = ModelCache(machine.read, machine.host.budget)
    with cache.hold(a := file("a", 300)):
        pass
    cache.make_room(10_000 * KIB)
    assert cache.holds(a)


def test_what_is_spare_is_asked_for_anew_while_models_move(cache: Any, machine: Machine):
    """Else ComfyUI would go on unloading when there is room already."""
    moments = iter(range(100))
    clock = lambda: next(moments) / 1000  # noqa: E731
    with DeviceLoans({}, lambda _: 0, cache, lambda: 0, clock) as loans:
        before = loans.spare_bytes()
        machine.device.take(100 * KIB)
        assert loans.spare_bytes() == before
        with loans.undisturbed():
            assert loans.spare_bytes() == before - 100 * KIB
            machine.device.take(-100 * KIB)
            assert loans.spare_bytes() == before
        machine.device.take(50 * KIB)
        assert loans.spare_bytes() == before - 50 * KIB
        machine.device.take(-50 * KIB)


def test_what_other_programs_use_counts(cache: Cache, machine: Machine, file: MakeFile):
    a, b = file("a", 250), file("b", 250)
    use(cache, a)
    machine.device.take(200 * KIB)  # a game starts
    use(cache, b)
    assert where(cache, a) == "host"


def test_a_device_that_is_main_memory_is_filled_once(machine: Machine, file: MakeFile):
    machine.device = machine.host
    cache: Cache = ModelCache(machine.read, machine.host.budget)
    a, b, c = (file(name, 300) for name in "abc")
    for key in (a, b, a, c):
        with cache.hold(key):
            pass
    assert [cache.holds(key) for key in (a, b, c)] == [True, True, True]
    with cache.hold(file("d", 300)):
        assert not cache.holds(b)
    assert machine.host.was_kept


def test_a_missing_file_is_no_entry(cache: Cache, tmp_path: Path):
    gone = ModelKey("checkpoint", tmp_path / "gone")
    with pytest.raises(ModelMissing, match="gone"), cache.hold(gone):
        pass
    assert not cache.holds(gone)


def test_a_file_that_vanished_or_was_replaced_is_noticed(
    cache: Cache, machine: Machine, file: MakeFile
):
    a = file("a", 100)
    use(cache, a)
    os.replace(file("new", 200).path, a.path)
    use(cache, a)
    assert machine.reads == ["a", "a"]
    assert machine.device.used_bytes == 200 * KIB  # nothing is left of the one before
    a.path.unlink()
    with pytest.raises(ModelMissing, match="a: no such file"):
        use(cache, a)


def test_a_broken_file_leaves_no_trace(cache: Cache, machine: Machine, file: MakeFile):
    a = file("a", 100)
    machine.broken.add("a")
    with pytest.raises(ModelBroken):
        use(cache, a)
    machine.broken.clear()
    use(cache, a)
    assert machine.device.used_bytes == 100 * KIB


def test_reading_a_file_holds_up_nobody_else(machine: Machine, file: MakeFile):
    a, slow = file("a", 100), file("slow", 100)
    reading, may_end = threading.Event(), threading.Event()

    def read(key: ModelKey) -> SimulatedPart:
        if key == slow:
            reading.set()
            assert may_end.wait(20)
        return machine.read(key)

    cache: Cache = ModelCache(read, machine.host.budget, machine.device.budget)
    ahead = threading.Thread(target=use, args=(cache, slow))
    ahead.start()
    assert reading.wait(20)
    use(cache, a)
    may_end.set()
    ahead.join(20)
    assert machine.reads == ["a", "slow"]


def test_two_that_want_one_file_read_it_once(machine: Machine, file: MakeFile):
    a = file("a", 100)
    both = threading.Barrier(2, timeout=120)
    cache: Cache = ModelCache(machine.read, machine.host.budget, machine.device.budget)

    def work(_seed: int) -> None:
        both.wait()
        use(cache, a)

    run_threads(work, threads=2, seconds=20)
    assert machine.reads == ["a"]


OPERATIONS, THREADS = 10_000, 8


def test_ten_thousand_operations_from_many_threads_keep_every_promise(
    cache: Cache, machine: Machine, file: MakeFile
):
    """Budgets hold at every moment, no lent part is evicted (it would say so), nothing hangs."""
    keys = [file(f"model {i}", 60 * (i + 1)) for i in range(7)]
    machine.broken.add("model 6")
    machine.giving_back = {"model 1", "model 3", "model 5"}

    def borrow(random: Random) -> None:
        key, working_bytes = random.choice(keys), random.randrange(3) * 50 * KIB
        with cache.lend(key, working_bytes=working_bytes) as part:
            part.borrowers += 1
            machine.device.take(working_bytes)
            assert part.is_on_device
            assert not part.missing_bytes
            if random.random() < 0.2:
                with suppress(OutOfMemory), cache.hold(random.choice(keys[:-1])):
                    pass
            assert part.is_on_device
            assert cache.holds(key)
            machine.device.take(-working_bytes)
            part.borrowers -= 1

    def keep(random: Random) -> None:
        with cache.hold(random.choice(keys)):
            borrow(random)

    def clear(_random: Random) -> None:
        cache.clear()

    def work(seed: int) -> None:
        random = Random(seed)
        for _ in range(OPERATIONS // THREADS):
            (operation,) = random.choices((borrow, keep, clear), (80, 19, 1))
            with suppress(OutOfMemory, ModelBroken):
                operation(random)

    run_threads(work, THREADS, seconds=240)
    assert machine.host.was_kept
    assert machine.device.was_kept
    assert len(machine.reads) > 10 * len(keys)  # the budgets were felt
    cache.clear()
    assert machine.host.used_bytes == machine.device.used_bytes == 0
