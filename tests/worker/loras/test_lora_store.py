from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from hordelib.errors import DownloadFailed
from hordelib.files.whole_files import PART
from hordelib.job.families import FAMILIES, Part
from worker.loras.base_models import BASELINES, may_fit
from worker.loras.files import LoraFile, LoraRecord, close_to, closest, named, of_model, of_version
from worker.loras.store import LoraStore, Quota

SIZE = 1000


def anything(base_model: str) -> bool:
    return True


class Disk:
    """A disk of `total_bytes` that holds the files below `folder`, and really fills up."""

    def __init__(self, folder: Path, total_bytes: int):
        self.folder = folder
        self.total_bytes = total_bytes

    def free_bytes(self) -> int:
        used = sum(path.stat().st_size for path in self.folder.rglob("*.safetensors*"))
        return self.total_bytes - used


def open_store(folder: Path, *, most: int = 10 * SIZE, disk: int = 1 << 30) -> LoraStore:
    return LoraStore(folder, Quota(lambda: most, SIZE, Disk(folder, disk).free_bytes))


@pytest.fixture
def store(tmp_path: Path) -> LoraStore:
    return open_store(tmp_path)


def record(version_id: int, name: str = "Ink", base: str = "SD 1.5", model_id: int = 1):
    return LoraRecord(
        name=name,
        model_id=model_id,
        version_id=version_id,
        base_model=base,
        triggers=("ink style",),
        sha256=hashlib.sha256(bytes(SIZE)).hexdigest(),
        size_bytes=SIZE,
    )


def put(store: LoraStore, about: LoraRecord, job_id: str = "") -> Path:
    """A file arrives, and is held only for a job of that name."""
    stem = f"{about.model_id}-{about.version_id}"
    with store.arrival(stem, about, job_id or "arriving") as path:
        part = path.with_name(path.name + PART)
        part.write_bytes(bytes(SIZE))
        part.replace(path)
    store.release("arriving")
    return path


def test_an_owners_file_is_no_version_at_all(tmp_path: Path, store: LoraStore):
    (tmp_path / "mine.safetensors").write_bytes(b"mine")
    assert store.find(of_version(0), "a job") is None


def names(store: LoraStore) -> list[str]:
    return [file.path.stem for file in store.files()]


def test_a_restart_keeps_the_index_and_the_order_of_use(tmp_path: Path, store: LoraStore):
    for version_id in (11, 12, 13):
        put(store, record(version_id))
    store.find(of_version(11), "a job")
    again = open_store(tmp_path, most=3 * SIZE)
    assert again.files() == store.files()
    assert replace(again.files()[0].about, mtime_ns=0) == record(11)
    put(again, record(14))
    assert names(again) == ["1-11", "1-13", "1-14"]


def test_files_that_vanish_or_shrink_are_forgotten(tmp_path: Path, store: LoraStore):
    vanished, cut, whole = (put(store, record(version_id)) for version_id in (11, 12, 13))
    vanished.unlink()
    cut.write_bytes(b"cut")
    for seen in (store, open_store(tmp_path)):
        assert [file.path for file in seen.files()] == [whole]
        assert seen.find(of_version(12), "a job") is None
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "1-13.dreamer.json",
        "1-13.safetensors",
    ]


def test_a_damaged_record_takes_its_file_along(tmp_path: Path, store: LoraStore):
    path = put(store, record(11))
    path.with_name("1-11.dreamer.json").write_text('{"name": ')
    assert open_store(tmp_path).files() == []
    assert not path.exists()


def test_the_owners_files_are_found_by_name_at_once(tmp_path: Path, store: LoraStore):
    (tmp_path / "My Style.safetensors").write_bytes(b"mine")
    (tmp_path / "old.pt").write_bytes(b"a pickle")
    found = store.find(named("my style", anything), "a job")
    assert found == LoraFile(
        tmp_path / "My Style.safetensors", LoraRecord(name="My Style", size_bytes=4)
    )
    assert store.find(named("old", anything), "a job") is None


@pytest.mark.parametrize("name", ["../../x", "/etc/passwd", "a/b", "..", "", "1-11.safetensors"])
def test_a_name_is_never_a_path(tmp_path: Path, name: str):
    (tmp_path / "x.safetensors").write_bytes(b"not in the store")
    store = open_store(tmp_path / "models" / "lora")
    put(store, record(11))
    assert store.find(named(name, anything), "a job") is None
    assert store.find(close_to(name, anything), "a job") is None


def test_the_newest_version_that_fits_serves_a_model_id(store: LoraStore):
    for version_id, base in ((11, "SD 1.5"), (12, "SD 1.5"), (13, "SDXL 1.0")):
        put(store, record(version_id, base=base))

    def version(baseline: str) -> int:
        found = store.find(of_model(1, lambda base: may_fit(base, baseline)), "a job")
        return found.about.version_id if found else 0

    assert [version(b) for b in ("stable diffusion 1", "stable_diffusion_xl", "flux_1")] == [
        12, 13, 0,
    ]  # fmt: skip


def test_the_quota_is_kept_and_the_least_recently_used_goes_first(store: LoraStore):
    for version_id in range(11, 21):
        put(store, record(version_id))
    store.find(of_version(11), "a job")
    store.release("a job")
    put(store, record(30))
    assert store.used_bytes == 10 * SIZE
    assert "1-11" in names(store)
    assert "1-12" not in names(store)


def test_files_in_use_and_the_owners_are_never_removed(tmp_path: Path):
    store = open_store(tmp_path, most=2 * SIZE)
    (tmp_path / "mine.safetensors").write_bytes(bytes(5 * SIZE))
    put(store, record(11), "one job")
    store.find(of_version(11), "another job")
    put(store, record(12))
    put(store, record(13), "one job")
    assert names(store) == ["1-11", "1-13", "mine"]
    store.release("one job")
    put(store, record(14))
    assert names(store) == ["1-11", "1-14", "mine"]
    store.find(of_version(14), "a third job")
    with pytest.raises(DownloadFailed, match="raise max_lora_cache_size"):
        put(store, record(15))
    assert names(store) == ["1-11", "1-14", "mine"]


def test_what_can_never_fit_removes_nothing(store: LoraStore):
    put(store, record(11))
    with pytest.raises(DownloadFailed, match="no room"):
        store.arrival("2-22", LoraRecord(name="Huge", size_bytes=11 * SIZE), "a job").__enter__()
    assert names(store) == ["1-11"]


def test_the_disk_keeps_its_reserve(tmp_path: Path):
    store = open_store(tmp_path, disk=4 * SIZE)
    for version_id in (11, 12, 13, 14):
        put(store, record(version_id))
    assert names(store) == ["1-12", "1-13", "1-14"]


def test_downloads_under_way_and_leftovers_count(tmp_path: Path):
    store = open_store(tmp_path, most=3 * SIZE)
    left_over = tmp_path / f"9-99.safetensors{PART}"
    left_over.write_bytes(bytes(SIZE))
    with store.arrival("1-11", record(11), "a job") as path:
        assert store.used_bytes == 2 * SIZE
        put(store, record(12), "a job")
        put(store, record(13), "a third job")
        assert not left_over.exists()
        with pytest.raises(DownloadFailed, match="no room"):
            put(store, record(14))
        path.write_bytes(bytes(SIZE))
    assert store.used_bytes == 3 * SIZE


def test_an_arrival_that_fails_leaves_only_its_part(tmp_path: Path, store: LoraStore):
    with suppress(DownloadFailed), store.arrival("1-11", record(11), "a job") as path:
        path.with_name(path.name + PART).write_bytes(b"the beginning")
        raise DownloadFailed("slow")
    assert [path.name for path in tmp_path.iterdir()] == ["1-11.safetensors.part"]
    assert store.files() == open_store(tmp_path).files() == []


def test_a_folder_that_was_removed_comes_back(tmp_path: Path):
    store = open_store(tmp_path / "lora")
    (tmp_path / "lora").rmdir()
    assert put(store, record(11)).is_file()
    assert names(store) == ["1-11"]


def test_what_can_not_be_recorded_takes_no_room(tmp_path: Path, store: LoraStore):
    (tmp_path / "1-11.dreamer.json").mkdir()
    with pytest.raises(OSError, match="directory"):
        put(store, record(11))
    assert store.used_bytes == 0
    assert put(store, record(12)).is_file()


def test_a_file_of_the_owner_is_not_overwritten(tmp_path: Path, store: LoraStore):
    (tmp_path / "1-11.safetensors").write_bytes(b"mine")
    with pytest.raises(DownloadFailed, match="rename it"):
        put(store, record(11))
    assert (tmp_path / "1-11.safetensors").read_bytes() == b"mine"


def test_a_file_whose_content_changed_is_removed_and_one_that_was_only_touched_stays(
    tmp_path: Path, store: LoraStore
):
    changed, touched = put(store, record(11)), put(store, record(12))
    changed.write_bytes(b"x" * SIZE)
    os.utime(changed, ns=(1, 1))
    os.utime(touched, ns=(1, 1))
    for seen in (store, open_store(tmp_path)):
        assert names(seen) == ["1-12"]
    assert not changed.exists()


def test_a_smaller_quota_holds_from_the_start(tmp_path: Path, store: LoraStore):
    for version_id in (11, 12, 13):
        put(store, record(version_id))
    store.find(of_version(11), "a job")
    assert names(open_store(tmp_path, most=2 * SIZE)) == ["1-11", "1-13"]


def test_a_file_larger_than_was_said_makes_others_go(tmp_path: Path):
    store = open_store(tmp_path, most=2 * SIZE)
    put(store, record(11))
    with store.arrival("2-21", record(21, model_id=2), "a job") as path:
        path.write_bytes(bytes(SIZE + 1))
    assert names(store) == ["2-21"]
    assert store.used_bytes == SIZE + 1


class Shelf(RuleBasedStateMachine):
    """Jobs that find, fetch and let go of files, in any order: what the quota promises holds."""

    MOST, DISK = 4, 6  # files of SIZE, the disk's reserve of one included

    def __init__(self):
        super().__init__()
        self._folder = TemporaryDirectory()
        self.folder = Path(self._folder.name)
        self.store = self._open()
        self.held: dict[int, set[str]] = {}

    def _open(self) -> LoraStore:
        return open_store(self.folder, most=self.MOST * SIZE, disk=self.DISK * SIZE)

    @rule(version_id=st.integers(1, 8), job=st.sampled_from("abc"))
    def fetch(self, version_id: int, job: str):
        if self.store.find(of_version(version_id), job) is None:
            with suppress(DownloadFailed):
                put(self.store, record(version_id), job)
        if (self.folder / f"1-{version_id}.safetensors").exists():
            self.held.setdefault(version_id, set()).add(job)

    @rule(version_id=st.integers(1, 8))
    def break_off(self, version_id: int):
        """A download that leaves only its beginning."""
        target = self.folder / f"1-{version_id}.safetensors"
        if target.exists():
            return
        with suppress(DownloadFailed), self.store.arrival(target.stem, record(version_id), "x"):
            target.with_name(target.name + PART).write_bytes(bytes(SIZE // 2))
            raise DownloadFailed("slow")

    @rule(job=st.sampled_from("abc"))
    def let_go(self, job: str):
        self.store.release(job)
        self.held = {version: jobs - {job} for version, jobs in self.held.items()}

    @rule()
    def restart(self):
        self.store = self._open()
        self.held = {}

    @invariant()
    def the_quota_and_the_disk_keep_their_bytes(self):
        size_bytes = sum(p.stat().st_size for p in self.folder.glob("*.safetensors*"))
        assert size_bytes <= self.MOST * SIZE
        assert self.store.used_bytes <= self.MOST * SIZE
        assert self.DISK * SIZE - size_bytes >= SIZE

    @invariant()
    def what_a_job_holds_is_there(self):
        for version_id, jobs in self.held.items():
            assert not jobs or (self.folder / f"1-{version_id}.safetensors").exists()

    def teardown(self):
        self._folder.cleanup()


TestShelf = Shelf.TestCase
TestShelf.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)


NAMES = ["Detail Tweaker", "Detail Tweaker XL", "Ink Wash", "LCM", "ink wash style", "Pixel Art"]


@pytest.mark.parametrize(
    ("wanted", "meant"),
    [
        ("INK WASH", "Ink Wash"),
        ("pixel", "Pixel Art"),
        ("Detail Tweeker", "Detail Tweaker"),
        ("detail", None),
        ("pi", None),
        ("art", None),
        ("tweaker", None),
        ("something else", None),
        ("", None),
    ],
)
def test_a_name_means_one_file_or_none(wanted: str, meant: str | None):
    assert closest(wanted, NAMES) == meant


def test_of_two_equally_close_names_none_is_meant():
    assert closest("style number 1", ["style number 2", "style number 3"]) is None


def test_a_close_name_is_found_among_the_files_that_fit(store: LoraStore):
    put(store, record(11, name="Detail Tweaker"))
    put(store, record(12, name="Detail Tweakers", base="SDXL 1.0", model_id=2))

    def fits(base_model: str) -> bool:
        return may_fit(base_model, "stable_diffusion_xl")

    found = store.find(close_to("Detail Tweeker", fits), "a job")
    assert found is not None
    assert found.about.version_id == 12


@pytest.mark.parametrize(
    ("base_model", "baselines"),
    [
        ("SD 1.5", ["stable diffusion 1"]),
        ("Pony", ["stable_diffusion_xl"]),
        ("Illustrious", ["stable_diffusion_xl"]),
        ("Flux.1 D", ["flux_1", "flux_dev"]),
        ("Wan Video 14B t2v", []),
        ("Something New", ["stable diffusion 1", "stable_diffusion_xl", "flux_1", "flux_dev"]),
        ("", ["stable diffusion 1", "stable_diffusion_xl", "flux_1", "flux_dev"]),
    ],
)
def test_a_base_model_fits_its_baseline(base_model: str, baselines: Sequence[str]):
    known = ("stable diffusion 1", "stable_diffusion_xl", "flux_1", "flux_dev")
    assert [baseline for baseline in known if may_fit(base_model, baseline)] == list(baselines)


@pytest.mark.parametrize("baseline", [n for n, row in FAMILIES.items() if Part.lora in row.serves])
def test_every_family_has_a_base_model_of_its_own(baseline: str):
    assert any(baseline in fitting for fitting in BASELINES.values())
