"""The ledger with real files, killed processes, full disks and damaged files."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from hordelib.job.notes import GenMetadata, MetadataType, MetadataValue
from tests.support.owner import PROJECT
from tests.support.small_disk import fill, remount, small_disk
from worker.clock import SteadyClock, elapsed_seconds
from worker.horde.api import CLEANER_SECONDS, ExtraSource, Job, Slot, slots_of
from worker.horde.kinds import Kind
from worker.jobs.ledger import FILE, KEPT_SECONDS, LONGEST_ASKED, Ledger
from worker.jobs.results import Failed, ImageEnd, JobStage, Made, Solved
from worker.jobs.sqlite_format import is_damage, told_by_check
from worker.jobs.totals import LOST_POPS

NOTE = GenMetadata(MetadataType.LORA, MetadataValue.DOWNLOAD_FAILED, "a LoRA")
DONE = ImageEnd(JobStage.submitted, 5.0)
DROPPED = ImageEnd(JobStage.faulted, reason="it broke", is_drop=True)


def job(name: str, images: int = 1, seconds: float = 200.0) -> tuple[Slot, ...]:
    ids = tuple(f"{name}-{i}" for i in range(images))
    return slots_of(ids, tuple(f"https://put/{id}" for id in ids), elapsed_seconds() + seconds)


def made(slot: Slot, webp: bytes = b"picture") -> Made:
    seed = (1 << 64) - 1 - slot.index
    return Made(slot, seed, webp, "a cat###a dog", use_nsfw_censor=True, notes=(NOTE,))


def clock_of(now: Callable[[], float]) -> SteadyClock:
    return SteadyClock(now, now)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / FILE


@pytest.fixture
def ledger(path: Path) -> Generator[Ledger]:
    with closing(Ledger(path)) as ledger:
        yield ledger


def reopened(path: Path, now: float | None = None) -> Ledger:
    """What the next life of the worker finds."""
    return Ledger(path, clock=None if now is None else clock_of(lambda: now))


def test_a_picture_that_was_made_is_found_with_all_that_judging_and_delivery_need(
    ledger: Ledger, path: Path
):
    slots = job("a", images=2)
    ledger.popped(slots, "Deliberate")
    ledger.made([made(slot, b"%d" % slot.index) for slot in slots])
    with closing(reopened(path)) as later:
        (owed,) = later.owed()
    assert (owed.results.job_id, owed.model) == ("a-0", "Deliberate")
    for image, slot in zip(owed.results.images, slots, strict=True):
        assert isinstance(image, Made)
        assert image == made(image.slot, b"%d" % slot.index)
        assert image.slot.over_at == pytest.approx(slot.over_at, abs=1)
        assert (image.slot.id, image.slot.upload_url) == (slot.id, slot.upload_url)
        assert (image.slot.index, image.slot.batch) == (slot.index, 2)


def test_what_has_failed_is_not_judged_again(ledger: Ledger, path: Path):
    (slot,) = job("a")
    ledger.popped([slot], "m")
    ledger.made([made(slot)])
    ledger.failed(Failed(slot, "nobody could judge it", 7))
    with closing(reopened(path)) as later:
        (image,) = later.owed()[0].results.images
    assert image == Failed(image.slot, "nobody could judge it", 7)


def test_a_form_that_comes_again_under_its_id_is_known_beside_what_it_ended_as(
    ledger: Ledger, path: Path
):
    (slot,) = job("a")
    ledger.popped([slot], "palette", kind=Kind.form)
    ledger.ended(slot.id, DROPPED)
    ledger.popped([slot], "palette", kind=Kind.form)
    ledger.solved(Solved(slot, {"colors": ["#ff0000"]}))
    with closing(reopened(path)) as later:
        (owed,) = later.owed(Kind.form)
        assert owed.solved == Solved(owed.slots[0], {"colors": ["#ff0000"]})
        assert (owed.slots[0].id, owed.model, owed.results.images) == (slot.id, "palette", ())
        assert len(later.drop_ages(Kind.form)) == 1
        later.ended(slot.id, DONE)
        totals = later.totals()
        ends = {JobStage.submitted: 1, JobStage.faulted: 1}
        assert (totals.others[Kind.form].ends, totals.open) == (ends, 0)


def asked(name: str, images: int = 1, seconds: float = 200.0) -> Job:
    """A job as the horde hands it out, with so many seconds until it gives it up."""
    slots = job(name, images, seconds)
    ttl = int(seconds) - CLEANER_SECONDS
    return Job(
        ids=tuple(slot.id for slot in slots),
        model="m",
        payload={"prompt": "a secret cat", "seed": "9" * 30, "loras": [{"name": "x"}]},
        ttl_seconds=ttl,
        upload_urls=tuple(slot.upload_url for slot in slots),
        popped_at=elapsed_seconds(),
        source_image="https://sources/1.webp",
        source_processing="inpainting",
        extra_sources=(ExtraSource(image="UklGRg==", strength=0.5),),
    )


def test_a_job_of_which_nothing_is_known_comes_back_as_it_was_handed_out(
    ledger: Ledger, path: Path
):
    popped = asked("a", images=2)
    ledger.popped(popped.slots, "m", popped.asked)
    with closing(reopened(path)) as later:
        (owed,) = later.owed()
    assert owed.job is not None
    assert owed.job.popped_at == pytest.approx(popped.popped_at, abs=1)
    assert replace(owed.job, popped_at=popped.popped_at) == popped
    assert [image.slot.id for image in owed.results.images] == list(popped.ids)


def test_what_is_too_late_or_was_tried_twice_is_not_made_again(path: Path):
    now = time.time()
    with closing(reopened(path, now)) as ledger:
        for popped in (asked("short", seconds=90), asked("long", seconds=900)):
            ledger.popped(popped.slots, "m", popped.asked)
    with closing(reopened(path, now + 100)) as second:
        short, long = second.owed()
        assert (short.job, long.job and long.job.id) == (None, "long-0")
    with closing(reopened(path, now + 200)) as third:
        assert [owed.job for owed in third.owed()] == [None, None]
    assert b"secret" not in everything_in(path.parent)


def test_a_deadline_that_is_too_far_away_is_not_believed(ledger: Ledger, path: Path):
    popped = asked("a")
    ledger.popped(popped.slots, "m", popped.asked)
    with closing(reopened(path, time.time() - 3600)) as later:
        (owed,) = later.owed()
    assert owed.job is None
    assert isinstance(owed.results.images[0], Failed)


def test_a_job_with_a_result_is_not_made_again(ledger: Ledger, path: Path):
    """Neither whole nor in part: each seed counts from the first image's."""
    for number, name in enumerate(("a", "b", "c")):
        popped = asked(name, images=2)
        ledger.popped(popped.slots, "m", popped.asked)
        match number:
            case 0:
                ledger.made([made(popped.slots[0])])
            case 1:
                ledger.failed(Failed(popped.slots[1], "no"))
            case _:
                ledger.ended(popped.slots[0].id, DONE)
    with closing(reopened(path)) as later:
        assert [owed.job for owed in later.owed()] == [None] * 3


def test_what_was_asked_for_leaves_the_disk_with_the_first_result(
    ledger: Ledger, path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("worker.jobs.durable_sqlite.TEND_SECONDS", 0.0)
    for name in ("a", "b", "c"):
        popped = asked(name, images=2)
        ledger.popped(popped.slots, "m", popped.asked)
        assert b"secret cat" in everything_in(path.parent)
        (first, second) = popped.slots
        match name:
            case "a":
                ledger.made([Made(slot, 1, b"picture", "") for slot in popped.slots])
            case "b":
                ledger.failed(Failed(first, "no"))
            case _:
                ledger.ended(second.id, DONE)
        ledger.tend()
        assert b"secret cat" not in everything_in(path.parent)


def everything_in(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.iterdir())


def test_a_job_that_can_not_be_written_down_is_faulted_by_its_ids(ledger: Ledger, path: Path):
    huge = replace(asked("a"), source_image="A" * (LONGEST_ASKED + 1))
    odd = replace(asked("b"), payload={"seed": 10**5000})
    for popped in (huge, odd):
        ledger.popped(popped.slots, "m", popped.asked)
    with closing(reopened(path)) as later:
        found = later.owed()
    assert [owed.job for owed in found] == [None, None]
    assert [owed.results.job_id for owed in found] == ["a-0", "b-0"]


def test_ids_are_known_while_they_are_in_hand_and_for_an_hour(ledger: Ledger):
    first, second = job("a", images=2)
    ledger.popped([first, second], "m")
    ledger.ended(first.id, DONE)
    assert ledger.known([first.id, "new", second.id]) == {first.id, second.id}
    assert ledger.known([f"{number}" for number in range(100_000)]) == frozenset()


def test_a_job_without_pictures_is_to_be_faulted(ledger: Ledger, path: Path):
    ledger.popped(job("a", images=2), "m")
    with closing(reopened(path)) as later:
        images = later.owed()[0].results.images
    assert [type(image) for image in images] == [Failed, Failed]


def test_an_ended_image_is_owed_no_more_and_its_picture_is_gone(ledger: Ledger, path: Path):
    first, second = job("a", images=2)
    ledger.popped([first, second], "m")
    ledger.made([made(first), made(second)])
    ledger.ended(first.id, DONE)
    with closing(reopened(path)) as later:
        (owed,) = later.owed()
        assert [image.slot.id for image in owed.results.images] == [second.id]
    with closing(sqlite3.connect(path)) as db:
        rows = db.execute("SELECT webp, prompt FROM images WHERE id = ?", (first.id,)).fetchall()
    assert rows == [(None, "")]


def test_jobs_are_owed_in_the_order_in_which_they_were_popped(ledger: Ledger):
    for name in ("z", "a", "m"):
        ledger.popped(job(name, images=2), "m")
    assert [owed.results.job_id for owed in ledger.owed()] == ["z-0", "a-0", "m-0"]


def test_everything_survives_a_process_that_is_killed_at_once(path: Path):
    script = (
        "import os, signal\n"
        "from pathlib import Path\n"
        "from tests.worker.jobs.test_ledger import *\n"
        f"ledger = Ledger(Path({str(path)!r}))\n"
        "slots = job('a', images=3)\n"
        "ledger.popped(slots, 'm')\n"
        "ledger.made([made(slots[1])])\n"
        "ledger.ended(slots[2].id, DONE)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=PROJECT, check=False)
    assert done.returncode == -signal.SIGKILL
    with closing(reopened(path)) as later:
        (owed,) = later.owed()
        assert [type(image) for image in owed.results.images] == [Failed, Made]
        assert later.totals().images == {JobStage.submitted: 1}


def test_drops_of_the_last_hour_are_known_to_the_next_life(ledger: Ledger, path: Path):
    slots = job("a", images=3)
    ledger.popped(slots, "m")
    ledger.ended(slots[0].id, DROPPED)
    ledger.ended(slots[1].id, DONE)
    with closing(reopened(path, time.time() + 60)) as later:
        assert later.drop_ages() == [pytest.approx(60, abs=2)]
        assert later.stop_ages() == []
    with closing(reopened(path, time.time() + KEPT_SECONDS + 60)) as much_later:
        assert much_later.drop_ages() == []


def test_totals_count_rows_and_days_and_lost_replies(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("worker.jobs.durable_sqlite.TEND_SECONDS", 0.0)
    now = [1_800_000_000.0]
    with closing(Ledger(path, clock=clock_of(lambda: now[0]))) as ledger:
        for number in range(6):
            (slot,) = job(f"{number}")
            ledger.popped([slot], "m")
            ledger.ended(slot.id, DROPPED if number == 3 else DONE)
            ledger.tend()
            now[0] += KEPT_SECONDS * 0.9
        ledger.popped(job("open", images=2), "m")
        ledger.count(LOST_POPS)
        ledger.count(LOST_POPS)
        totals = ledger.totals()
    assert totals.images == {JobStage.submitted: 5, JobStage.faulted: 1}
    assert (totals.kudos, totals.open, totals.lost_pops) == (25.0, 2, 2)


def test_it_stays_small_however_much_is_served(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("worker.jobs.durable_sqlite.TEND_SECONDS", 0.0)
    now = [1_800_000_000.0]
    with closing(Ledger(path, clock=clock_of(lambda: now[0]))) as ledger:
        for number in range(300):
            slots = job(str(number), images=2)
            ledger.popped(slots, "m")
            ledger.made([made(slot, bytes(200_000)) for slot in slots])
            for slot in slots:
                ledger.ended(slot.id, DONE)
            ledger.tend()
            now[0] += KEPT_SECONDS / 20
        assert ledger.totals().images == {JobStage.submitted: 600}
        with closing(sqlite3.connect(path)) as db:
            assert db.execute("SELECT count(*) FROM images").fetchone()[0] < 60
        used_bytes = sum(file.stat().st_size for file in path.parent.iterdir())
    assert used_bytes < 8 << 20  # of 120 MB that went through it


def test_only_its_owner_can_read_it(ledger: Ledger, path: Path):
    ledger.popped(job("a"), "m")
    assert path.parent.stat().st_mode & 0o077 == 0
    for file in path.parent.iterdir():  # the write-ahead log too
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


@pytest.mark.parametrize("content", [b"not a database at all" * 100, b"", bytes(5000)])
def test_a_damaged_file_is_put_aside_and_told(
    path: Path, content: bytes, caplog: pytest.LogCaptureFixture
):
    with closing(Ledger(path)) as before:
        before.popped(job("a"), "m")
    path.write_bytes(content)
    with closing(Ledger(path)) as ledger:
        ledger.popped(job("b"), "m")
        assert not ledger.trouble
    with closing(reopened(path)) as later:
        assert [owed.results.job_id for owed in later.owed()] == ["b-0"]
    is_damaged = bool(content)
    assert ("damaged" in caplog.text) == is_damaged
    assert path.with_name(f"{FILE}.damaged").exists() == is_damaged


def test_pages_overwritten_while_it_runs_do_not_stop_it(ledger: Ledger, path: Path):
    ledger.popped(job("a", images=8), "m")
    with path.open("r+b") as file:
        file.write(b"\xff" * 40_000)
    path.with_name(f"{FILE}-wal").write_bytes(b"\xff" * 10_000)
    (slot,) = job("b")
    ledger.popped([slot], "m")
    ledger.made([made(slot)])
    ledger.ended(slot.id, DONE)
    assert ledger.totals().images.get(JobStage.submitted) == 1


def test_a_file_that_is_damaged_while_it_runs_is_put_aside_with_all_jobs_in_the_next(
    ledger: Ledger, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr("worker.jobs.durable_sqlite.RETRY_SECONDS", 0.0)
    ledger.popped(job("a"), "m")
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    path.write_bytes(b"not a database at all" * 1000)
    ledger.popped(job("b"), "m")
    ledger.tend()
    assert not ledger.trouble
    assert "put aside" in caplog.text
    ledger.popped(job("c"), "m")
    with closing(reopened(path)) as later:
        assert {owed.results.job_id for owed in later.owed()} >= {"b-0", "c-0"}


def test_a_picture_that_an_earlier_version_had_judged_is_not_lost(ledger: Ledger, path: Path):
    (slot,) = job("a")
    ledger.popped([slot], "m")
    ledger.made([made(slot)])
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE images SET state = 'cleared'")
    assert isinstance(ledger.owed()[0].results.images[0], Made)


def test_a_file_of_another_version_is_put_aside_whole_under_a_name_that_says_so(
    path: Path, caplog: pytest.LogCaptureFixture
):
    for name in ("a", "b"):  # the second one replaces no earlier one
        with closing(Ledger(path)) as theirs:
            theirs.popped(job(name), "m")
        with closing(sqlite3.connect(path)) as db:
            db.execute("PRAGMA user_version = 99")
        with closing(Ledger(path)) as ledger:
            assert not ledger.trouble
            assert ledger.owed() == []
    kept = sorted(path.parent.glob(f"{FILE}.version-99*"))
    assert len(kept) == 2
    for file in kept:
        with closing(sqlite3.connect(file)) as db:
            assert db.execute("SELECT count(*) FROM images").fetchone() == (1,)
    assert "another version of Dreamer (format 99, not 3)" in caplog.text
    assert "damaged" not in caplog.text


def test_a_full_disk_is_told_once_and_the_ledger_goes_on_and_returns(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("worker.jobs.durable_sqlite.RETRY_SECONDS", 0.0)
    with small_disk(tmp_path / "disk", 400) as folder, closing(Ledger(folder / FILE)) as ledger:
        slots = job("a", images=3)
        ledger.popped(slots, "m")
        ledger.made([made(slot, bytes(300_000)) for slot in slots])
        assert ledger.trouble
        assert caplog.text.count("can't be written") == 1
        (owed,) = ledger.owed()
        assert [type(image) for image in owed.results.images] == [Made] * 3

        remount(folder, "size=8m")
        ledger.ended(slots[0].id, DONE)
        ledger.tend()
        assert not ledger.trouble
        assert "kept on disk again" in caplog.text
        with closing(reopened(folder / FILE)) as later:
            assert [type(image) for image in later.owed()[0].results.images] == [Made] * 2


@pytest.mark.parametrize("is_full", [True, False], ids=["full", "read-only"])
def test_what_an_earlier_life_left_is_read_from_a_disk_that_can_not_be_written(
    tmp_path: Path, is_full: bool
):
    script = (
        "import os, sys\n"
        "from tests.worker.jobs.test_ledger import *\n"
        "ledger = Ledger(Path(sys.argv[1]))\n"
        "ledger.popped(job('a'), 'm')\n"
        "ledger.made([made(job('a')[0])])\n"
        "os._exit(0)\n"
    )
    with small_disk(tmp_path / "disk", 600) as folder:
        path = folder / FILE
        subprocess.run([sys.executable, "-c", script, str(path)], cwd=PROJECT, check=True)
        if is_full:
            fill(folder)
        else:
            remount(folder, "ro")
        with closing(Ledger(path)) as ledger:
            assert ledger.trouble
            ledger.popped(job("b"), "m")
            assert [each.results.job_id for each in ledger.owed()] == ["a-0", "b-0"]
            if is_full:
                (folder / "filler").unlink()
            else:
                remount(folder, "rw")
        with closing(Ledger(path)) as later:
            assert [each.results.job_id for each in later.owed()] == ["a-0", "b-0"]


def test_a_start_while_no_file_can_be_written_loses_nothing_that_an_earlier_life_left(path: Path):
    """Not even a copy, which the other disks of a machine may have no room for."""
    path.parent.mkdir(exist_ok=True)
    killed = (
        "import os, sys\n"
        "from tests.worker.jobs.test_ledger import *\n"
        "Ledger(Path(sys.argv[1])).popped(job('a'), 'm')\n"
        "os._exit(0)\n"
    )
    full = (
        "import resource, sys\n"
        "from tests.worker.jobs.test_ledger import *\n"
        "from worker.jobs import durable_sqlite\n"
        "durable_sqlite.RETRY_SECONDS = 0.0\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))\n"
        "ledger = Ledger(Path(sys.argv[1]))\n"
        "assert ledger.trouble\n"
        "ledger.popped(job('b'), 'm')\n"
        "assert [each.results.job_id for each in ledger.owed()] == ['a-0', 'b-0']\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)\n"
        "ledger.tend()\n"
        "assert not ledger.trouble\n"
        "os._exit(0)\n"
    )
    for script in (killed, "import os\n" + full):
        subprocess.run([sys.executable, "-c", script, str(path)], cwd=PROJECT, check=True)
    with closing(Ledger(path)) as later:
        assert [each.results.job_id for each in later.owed()] == ["a-0", "b-0"]


def test_a_file_that_could_not_be_read_keeps_its_rows_beside_those_that_came_meanwhile(
    ledger: Ledger, path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A folder that is away for a while, as on a network, comes back with what it had."""
    monkeypatch.setattr("worker.jobs.durable_sqlite.RETRY_SECONDS", 0.0)
    ledger.popped(job("a"), "m")
    ledger.close()
    away = path.parent.with_name("away")
    path.parent.rename(away)
    path.parent.touch()
    with closing(Ledger(path)) as later:
        assert later.trouble
        later.popped(job("b"), "m")
        path.parent.unlink()
        away.rename(path.parent)
        later.tend()
        assert not later.trouble
    with closing(Ledger(path)) as last:
        assert [each.results.job_id for each in last.owed()] == ["a-0", "b-0"]


def test_a_folder_that_can_not_be_written_is_told_and_nothing_stops(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    with small_disk(tmp_path / "disk", 400, "ro") as folder, closing(Ledger(folder / FILE)) as it:
        assert "can't be written" in caplog.text
        it.popped(job("a"), "m")
        assert [owed.results.job_id for owed in it.owed()] == ["a-0"]


def test_a_deleted_folder_comes_back_with_all_that_is_open(
    ledger: Ledger, path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("worker.jobs.durable_sqlite.TEND_SECONDS", 0.0)
    first, second = job("a", images=2)
    ledger.popped([first, second], "m")
    ledger.made([made(first), made(second)])
    shutil.rmtree(path.parent)
    ledger.ended(first.id, DONE)
    ledger.tend()
    with closing(reopened(path)) as later:
        (owed,) = later.owed()
    assert [image.slot.id for image in owed.results.images] == [second.id]


def test_another_file_that_comes_to_its_place_is_not_overwritten(
    ledger: Ledger, path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The disk of the state folder was mounted late."""
    monkeypatch.setattr("worker.jobs.durable_sqlite.TEND_SECONDS", 0.0)
    ledger.popped(job("a"), "m")
    ledger.count(LOST_POPS)
    other = path.parent.with_name("mounted")
    with closing(Ledger(other / FILE)) as earlier:
        earlier.popped(job("b"), "m")
        earlier.count(LOST_POPS)
    path.parent.rename(path.parent.with_name("below"))
    other.rename(path.parent)
    ledger.tend()
    assert not ledger.trouble
    ledger.popped(job("c"), "m")
    with closing(reopened(path)) as later:
        assert {owed.results.job_id for owed in later.owed()} == {"a-0", "b-0", "c-0"}
        assert later.totals().lost_pops == 2


def test_a_page_that_can_not_be_read_for_want_of_memory_is_no_damage():
    found = told_by_check("Page 3: unable to get the page. error code=7")
    assert not is_damage(found, Path("x"))
    assert is_damage(told_by_check("row 1 missing from index ended"), Path("x"))
    assert not is_damage(MemoryError(), Path("x"))


def test_a_clock_that_was_set_makes_nothing_wait_for_ever(ledger: Ledger, path: Path):
    ledger.popped(job("a", seconds=200), "m")
    a_day = 86400.0
    for jump in (-a_day, a_day):
        with closing(reopened(path, time.time() + jump)) as later:
            (image,) = later.owed()[0].results.images
            left_seconds = image.slot.over_at - elapsed_seconds()
        assert left_seconds <= KEPT_SECONDS
        assert (left_seconds > 0) == (jump < 0)


@pytest.mark.parametrize("jump", [3 * 86400.0, -3 * 86400.0, 30 * 365 * 86400.0, -600.0])
def test_a_clock_that_is_set_while_it_serves_changes_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch, jump: float
):
    monkeypatch.setattr("worker.jobs.durable_sqlite.TEND_SECONDS", 0.0)
    began = time.time()
    ahead, elapsed = 0.0, 0.0
    clock = SteadyClock(lambda: began + elapsed + ahead, lambda: elapsed)
    with closing(Ledger(path, clock=clock)) as ledger:
        ledger.popped(job("ended"), "m")
        ledger.ended("ended-0", DROPPED)
        ledger.popped(job("open", seconds=200), "m")
        ahead = jump
        ledger.tend()
        elapsed = 60.0
        ledger.tend()
        assert ledger.known(["ended-0"]) == {"ended-0"}
        assert ledger.drop_ages() == [pytest.approx(60, abs=2)]
    with closing(reopened(path, began + elapsed + jump)) as later:
        assert later.drop_ages() == [pytest.approx(60, abs=2)]
        (owed,) = later.owed()
    left_seconds = owed.results.images[0].slot.over_at - elapsed_seconds()
    assert left_seconds == pytest.approx(140, abs=5)


def test_what_ended_in_the_future_counts_for_an_hour_and_is_forgotten(
    ledger: Ledger, path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The clock was set back between two lives."""
    monkeypatch.setattr("worker.jobs.durable_sqlite.TEND_SECONDS", 0.0)
    ledger.popped(job("a"), "m")
    ledger.ended("a-0", DROPPED)
    earlier = time.time() - 3 * 86400
    with closing(reopened(path, earlier)) as later:
        assert later.drop_ages() == [0.0]
    with closing(reopened(path, earlier + KEPT_SECONDS + 1)) as later:
        later.tend()
        assert (later.drop_ages(), later.known(["a-0"])) == ([], frozenset())
        assert later.totals().images == {JobStage.faulted: 1}


def test_many_threads_write_at_once(ledger: Ledger):
    def serve(name: int) -> None:
        for number in range(20):
            (slot,) = job(f"{name}-{number}")
            ledger.popped([slot], "m")
            ledger.made([made(slot)])
            ledger.ended(slot.id, DONE)

    threads = [threading.Thread(target=serve, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    totals = ledger.totals()
    assert (totals.images, totals.open) == ({JobStage.submitted: 160}, 0)
