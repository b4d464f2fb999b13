"""Real jobs in little memory: what is read from disk, what is given back, what a bad file does.

The limit is of this process alone, so that other programs can't disturb: like a container's, it
counts what the process has for itself, and not what it maps of files.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import math
import mmap
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import pytest

from hordelib import Engine
from hordelib.demo_model import ensure_lora
from hordelib.errors import GenerationFailed, JobError, ModelBroken, ModelMissing
from hordelib.files.model import Model
from hordelib.job.params import Lora
from hordelib.memory.heap import trim_heap
from hordelib.memory.job_models import REQUEST_BYTES, fill_page_cache
from hordelib.memory.readings import anonymous_bytes
from tests.hordelib.comfyui.test_batches import unet_limited_to
from tests.hordelib.test_engine import SMALL
from tests.support.looks import difference

MIB = 1 << 20
QUICK = replace(SMALL, steps=2)


@dataclass
class Container:
    limit_bytes: int
    lowest_bytes: int = 1 << 60

    @classmethod
    def with_room(cls, size_bytes: int) -> Self:
        """For so much more than there is now; what was freed is not there."""
        gc.collect()
        trim_heap()
        return cls(anonymous_bytes() + size_bytes)

    def free_bytes(self) -> int:
        return self.limit_bytes - anonymous_bytes()

    def watch(self, _done: int, _total: int) -> None:
        self.lowest_bytes = min(self.lowest_bytes, self.free_bytes())


@pytest.fixture
def container(engine: Engine, checkpoint: Path) -> Container:
    """Room for one UNet of the demo model (139 MiB) and for work, not for two."""
    engine.generate(QUICK, checkpoint)
    return Container.with_room(330 * MIB)


@pytest.fixture
def tight(container: Container) -> Generator[Engine]:
    with Engine(ram_reserve_bytes=64 * MIB, free_ram_bytes=container.free_bytes) as engine:
        yield engine


@pytest.fixture
def copies(checkpoint: Path, tmp_path: Path) -> Iterator[list[Model]]:
    paths = [tmp_path / f"copy {i}.safetensors" for i in range(2)]
    for path in paths:
        shutil.copyfile(checkpoint, path)
    yield [Model.of_checkpoint(path) for path in paths]
    for path in paths:
        path.unlink(missing_ok=True)  # the disk is needed by the tests to come


@pytest.fixture
def reads(caplog: pytest.LogCaptureFixture) -> Callable[[], Counter[str]]:
    """How often each part was read so far."""
    caplog.set_level(logging.INFO, "hordelib.memory.cache")

    def counted() -> Counter[str]:
        messages = (record.getMessage() for record in caplog.records)
        return Counter(message for message in messages if message.startswith("reading"))

    return counted


def test_alternating_models_are_read_once_and_stay_within_the_budget(
    tight: Engine,
    container: Container,
    copies: list[Model],
    reads: Callable[[], Counter[str]],
):
    pictures = [tight.generate(QUICK, model, container.watch).images[0] for model in copies * 3]
    assert len(reads()) == 6  # three parts of two files
    assert set(reads().values()) == {1}
    assert container.lowest_bytes >= 64 * MIB
    assert all(difference(pictures[0], picture) == 0 for picture in pictures)


def test_a_batch_without_room_is_split_before_it_runs_and_its_pictures_are_the_same(
    engine: Engine, tight: Engine, container: Container, checkpoint: Path
):
    container.limit_bytes += 30 * MIB  # for more than one of them, and not for all
    job = replace(QUICK, width=128, height=128, images=4, seed=300)
    together = engine.generate(job, checkpoint).images
    with unet_limited_to(images=job.images) as sizes:
        split = tight.generate(job, checkpoint, container.watch).images
    assert max(sizes) < 2 * job.images  # both prompts of each image
    assert container.lowest_bytes >= 64 * MIB
    assert [picture.seed for picture in split] == [300, 301, 302, 303]
    assert all(difference(*pair) <= 2 for pair in zip(together, split, strict=True))


def test_a_lora_job_never_makes_the_next_one_read_the_model_again(
    tight: Engine,
    container: Container,
    copies: list[Model],
    reads: Callable[[], Counter[str]],
    models: Path,
):
    container.limit_bytes += 500 * MIB  # for the weights that the LoRA changes
    with_lora = replace(QUICK, loras=(Lora("demo", ensure_lora(models)),))
    plain = tight.generate(QUICK, copies[0]).images[0]
    changed = tight.generate(with_lora, copies[0]).images[0]
    again = tight.generate(QUICK, copies[0]).images[0]
    assert difference(plain, changed) > 0
    assert difference(plain, again) == 0
    assert set(reads().values()) == {1}


def test_the_next_jobs_model_is_read_while_this_one_samples(
    tight: Engine, copies: list[Model], reads: Callable[[], Counter[str]]
):
    now, later = copies

    def prepare(done: int, _total: int) -> None:
        if done == 1:  # the engine's thread waits here, in the middle of its job
            tight.prepare(QUICK, later).result(timeout=120)

    tight.generate(QUICK, now, prepare)
    assert len(reads()) == 6
    assert tight.generate(QUICK, later).load_seconds < 0.05
    assert len(reads()) == 6


def test_pages_are_fetched_for_the_next_model_if_there_is_room_and_not_for_the_one_at_work(
    tight: Engine,
    container: Container,
    copies: list[Model],
    monkeypatch: pytest.MonkeyPatch,
):
    now, later = copies
    fetched: list[int] = []
    advise = os.posix_fadvise

    def counted(descriptor: int, start: int, size: int, advice: int) -> None:
        fetched.append(os.fstat(descriptor).st_ino)
        advise(descriptor, start, size, advice)

    def prepare(done: int, _total: int) -> None:
        if done == 1:
            for room_bytes in (0, 500 * MIB):
                container.limit_bytes += room_bytes
                for model in (now, later):
                    tight.prepare(QUICK, model).result(timeout=120)
                assert set(fetched) == ({file_of(later).stat().st_ino} if room_bytes else set())

    monkeypatch.setattr(os, "posix_fadvise", counted)
    tight.generate(QUICK, now, prepare)
    assert len(fetched) == math.ceil(file_of(later).stat().st_size / REQUEST_BYTES)


def test_the_pages_of_a_file_are_there_once_they_were_asked_for(tmp_path: Path):
    file = tmp_path / "file"
    with file.open("wb") as written:
        written.write(os.urandom(20 * MIB))
        written.flush()
        os.fsync(written.fileno())
        os.posix_fadvise(written.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if resident_share(file):
        pytest.skip("this file system keeps its pages")
    fill_page_cache(file)
    end = time.monotonic() + 10
    while resident_share(file) < 1:
        assert time.monotonic() < end
        time.sleep(0.05)


def resident_share(file: Path) -> float:
    """How much of it is in memory (mincore(2))."""
    with file.open("rb") as read, mmap.mmap(read.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
        first = ctypes.c_char.from_buffer(mapped)
        pages = (ctypes.c_ubyte * math.ceil(len(mapped) / mmap.PAGESIZE))()
        mincore = ctypes.CDLL(None).mincore
        assert mincore(ctypes.byref(first), ctypes.c_size_t(len(mapped)), pages) == 0
        del first
    return sum(page & 1 for page in pages) / len(pages)


def test_reading_ahead_says_nothing_of_a_broken_file(tight: Engine, copies: list[Model]):
    cut_off(copies[1])
    tight.generate(QUICK, copies[0])
    tight.prepare(QUICK, copies[1]).result(timeout=120)
    with pytest.raises(ModelBroken):
        tight.generate(QUICK, copies[1])


def file_of(model: Model) -> Path:
    return model.files["checkpoint"]


def cut_off(model: Model) -> None:
    os.truncate(file_of(model), 200 * MIB)


def garble(model: Model) -> None:
    with file_of(model).open("r+b") as file:
        file.write(os.urandom(4096))


def remove(model: Model) -> None:
    file_of(model).unlink()


def put_another_family_in_its_place(model: Model) -> None:
    from tests.support.family_files import HEADERS, write_header

    other = file_of(model).with_name("other.safetensors")
    os.replace(write_header(other, HEADERS["stable_diffusion_xl"]), file_of(model))


DAMAGE = {
    "cut off": (cut_off, ModelBroken),
    "garbled": (garble, ModelBroken),
    "removed": (remove, ModelMissing),
    "another family": (put_another_family_in_its_place, ModelBroken),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_file_that_goes_bad_between_jobs_is_named_and_others_go_on(
    tight: Engine, copies: list[Model], what: str
):
    damage, error = DAMAGE[what]
    bad, good = copies
    tight.generate(QUICK, bad)
    damage(bad)
    for _ in range(2):
        with pytest.raises(error, match=r"copy 0\.safetensors"):
            tight.generate(QUICK, bad)
    assert tight.generate(QUICK, good).images


@pytest.mark.parametrize("damage", [cut_off, remove])
def test_a_file_that_goes_bad_while_its_job_samples_fails_that_job(
    tight: Engine, copies: list[Model], damage: Callable[[Model], None]
):
    bad, good = copies

    def on_step(done: int, _total: int) -> None:
        if done == 1:
            damage(bad)

    with pytest.raises(GenerationFailed, match=r"copy 0\.safetensors .* changed or removed"):
        tight.generate(QUICK, bad, on_step)
    with pytest.raises(JobError):
        tight.generate(QUICK, bad)
    assert tight.generate(QUICK, good).images


def test_a_good_file_in_place_of_a_damaged_one_serves_again(tight: Engine, copies: list[Model]):
    bad, good = copies
    cut_off(bad)
    with pytest.raises(ModelBroken):
        tight.generate(QUICK, bad)
    shutil.copyfile(file_of(good), file_of(bad))
    assert tight.generate(QUICK, bad).images
