"""What is there of a model, what is still to come, and whether it fits."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from hordelib.files.content_hash import content_hash
from worker.models.files.checksums import VerifiedFiles
from worker.models.files.on_disk import (
    DISK_FLOOR_BYTES,
    FileStock,
    State,
    Stock,
    look,
    make_plan,
    size_text,
)
from worker.models.reference import Kind, ReferenceEntry, ReferenceFile

GB = 10**9
CONTENT = b"weights"
SHA = hashlib.sha256(CONTENT).hexdigest()


def entry(name: str, *files: str, size_bytes: int = 0, sha256: str = SHA) -> ReferenceEntry:
    rows = tuple(
        ReferenceFile(path=PurePosixPath("compvis") / file, url="https://host/x", sha256=sha256)
        for file in files or (f"{name}.ckpt",)
    )
    return ReferenceEntry(name=name, kind=Kind.model, files=rows, size_bytes=size_bytes)


def stock(name: str, size_gb: float, there_gb: float = 0, file: str = "", sha: str = SHA) -> Stock:
    row = entry(name, file or f"{name}.ckpt", size_bytes=int(size_gb * GB), sha256=sha)
    whole = 0 < there_gb == size_gb
    state = State.verified if whole else State.incomplete if there_gb else State.missing
    path = Path("/models") / row.files[0].path
    return Stock(row, (FileStock(row.files[0], path, state, int(there_gb * GB)),))


# ---- looking ---------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "compvis").mkdir()
    return tmp_path


def state_of(folder: Path, row: ReferenceEntry) -> State:
    return look(folder, row, VerifiedFiles(folder)).state


def test_a_file_goes_from_missing_to_verified(folder: Path):
    row = entry("a")
    file = folder / "compvis" / "a.ckpt"
    assert state_of(folder, row) is State.missing
    (folder / "compvis" / "a.ckpt.part").write_bytes(CONTENT[:3])
    assert look(folder, row, VerifiedFiles(folder)).there_bytes == 3
    assert state_of(folder, row) is State.incomplete
    file.write_bytes(CONTENT)
    assert state_of(folder, row) is State.unread
    assert VerifiedFiles(folder).measure(file) == SHA
    assert state_of(folder, row) is State.verified


def test_a_file_that_changed_is_read_anew(folder: Path):
    row = entry("a")
    file = folder / "compvis" / "a.ckpt"
    file.write_bytes(CONTENT)
    verified = VerifiedFiles(folder)
    verified.measure(file)
    file.write_bytes(b"another")  # of the same size
    os.utime(file, ns=(1, 1))
    assert state_of(folder, row) is State.unread
    verified.measure(file)
    assert state_of(folder, row) is State.other


def test_a_model_is_as_far_as_its_worst_file(folder: Path):
    row = entry("a", "a.ckpt", "b.ckpt")
    (folder / "compvis" / "a.ckpt").write_bytes(CONTENT)
    VerifiedFiles(folder).measure(folder / "compvis" / "a.ckpt")
    assert state_of(folder, row) is State.incomplete
    (folder / "compvis" / "b.ckpt").write_bytes(b"other")
    VerifiedFiles(folder).measure(folder / "compvis" / "b.ckpt")
    assert state_of(folder, row) is State.other


def test_without_a_checksum_nobody_can_say(folder: Path):
    (folder / "compvis" / "a.ckpt").write_bytes(CONTENT)
    assert state_of(folder, entry("a", sha256="")) is State.unlisted


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"a": 1}'])
def test_a_damaged_memory_of_verified_files_is_begun_anew(folder: Path, damage: str):
    (folder / "compvis" / "a.ckpt").write_bytes(CONTENT)
    (folder / "verified.json").write_text(damage)
    verified = VerifiedFiles(folder)
    assert verified.known(folder / "compvis" / "a.ckpt") == ""
    verified.measure(folder / "compvis" / "a.ckpt")
    assert VerifiedFiles(folder).known(folder / "compvis" / "a.ckpt") == SHA


def test_files_that_are_gone_are_forgotten(folder: Path):
    for name in ("a", "b"):
        (folder / "compvis" / name).write_bytes(CONTENT)
        VerifiedFiles(folder).measure(folder / "compvis" / name)
        (folder / "compvis" / "a").unlink(missing_ok=True)
    assert "compvis/a" not in (folder / "verified.json").read_text()


def test_a_file_without_a_sha256_is_known_by_its_tensors(folder: Path):
    weights, same, other = ({"a": torch.full((2,), number)} for number in (1.0, 1.0, 2.0))
    row = entry("a", "a.safetensors", sha256="")
    path = folder / row.files[0].path
    save_file(weights, path)
    right = replace(row.files[0], content_hash=content_hash(path))
    row = replace(row, files=(right,))
    assert state_of(folder, row) is State.unread
    save_file(same, path, {"by": "another program"})
    os.utime(path, ns=(1, 1))
    VerifiedFiles(folder).measure(path)
    assert state_of(folder, row) is State.unread, "its sha256 says nothing of its tensors"
    VerifiedFiles(folder).measure(path, of_tensors=True)
    assert state_of(folder, row) is State.verified
    assert VerifiedFiles(folder).known(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    save_file(other, path)
    os.utime(path, ns=(2, 2))
    VerifiedFiles(folder).measure(path, of_tensors=True)
    assert state_of(folder, row) is State.other


# ---- deciding --------------------------------------------------------------------------------


def test_what_is_there_is_not_fetched_and_what_came_is_not_counted_again():
    plan = make_plan([stock("A", 4, 4), stock("B", 4, 1), stock("C", 2)], (), 10 * GB)
    assert [each.name for each in plan.fetched] == ["B", "C"]
    assert plan.to_come_bytes == 5 * GB
    assert plan.summary == "2 to download: 5.0 GB; 10.0 GB free"
    assert plan.refused == ()


def test_what_does_not_fit_is_refused_and_the_rest_is_fetched():
    plan = make_plan([stock("A", 4), stock("B", 7), stock("C", 1)], (), 10 * GB)
    assert [each.name for each in plan.fetched] == ["A", "C"]
    (refused,) = plan.refused
    assert refused.reason == (
        "B: needs 7.0 GB, and there is room for 4.0 GB (2.0 GB of the disk stay free); "
        "free 3.0 GB, or set cache_home to a larger disk"
    )


def test_the_models_to_remove_are_named_the_largest_first():
    idle = [stock("Small", 1, 1), stock("Big One", 3, 3), stock("Middle", 2, 2)]
    (refused,) = make_plan([stock("New", 6)], idle, 4 * GB).refused
    assert 'models remove "Big One" "Middle" would free 5.0 GB' in refused.reason


def test_a_file_that_a_wanted_model_has_too_is_nothing_to_gain():
    shared = stock("Old", 3, 3, file="shared.ckpt")
    wanted = [stock("Kept", 3, 3, file="shared.ckpt"), stock("New", 6)]
    (refused,) = make_plan(wanted, [shared], 4 * GB).refused
    assert "models remove" not in refused.reason


def test_a_file_that_could_not_be_verified_is_not_downloaded():
    (refused,) = make_plan([stock("A", 1, sha="")], (), 100 * GB).refused
    assert "A: the reference has no checksum" in refused.reason


def test_a_size_that_nobody_tells_is_said_so():
    plan = make_plan([stock("A", 0), stock("B", 1)], (), 100 * GB)
    assert plan.summary.startswith("2 to download: 1.0 GB, and some of unknown size; ")
    assert len(plan.fetched) == 2
    plan = make_plan([stock("A", 0)], (), 100 * GB)
    assert plan.summary.startswith("1 to download (size unknown); ")
    (refused,) = make_plan([stock("A", 0)], (), 1 * GB).refused
    assert refused.reason.startswith("A: needs room (size unknown), and there is none (2.0 GB of")


SIZES = st.lists(st.tuples(st.integers(1, 50), st.integers(0, 50)), max_size=8)


@given(SIZES, st.integers(0, 200), st.lists(st.integers(1, 50), max_size=5))
def test_the_disk_always_keeps_its_reserve_and_every_model_has_one_fate(
    sizes: list[tuple[int, int]], free_gb: int, idle: list[int]
):
    wanted = [stock(f"m{n}", size, min(size, came)) for n, (size, came) in enumerate(sizes)]
    others = [stock(f"i{n}", size, size) for n, size in enumerate(idle)]
    plan = make_plan(wanted, others, free_gb * GB)
    if plan.fetched:
        assert plan.free_bytes - plan.to_come_bytes >= DISK_FLOOR_BYTES
    fates = [each.name for each in plan.fetched] + [each.stock.name for each in plan.refused]
    assert sorted(fates) == sorted(each.name for each in wanted if each.is_wanting)


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0 kB"), (12_000, "12 kB"), (340 * 10**6, "340 MB"), (6_938_000_000, "6.9 GB"),
     (2_300 * GB, "2.3 TB"), (123 * GB, "123 GB")],
)  # fmt: skip
def test_sizes_for_people(size_bytes: int, text: str):
    assert size_text(size_bytes) == text
