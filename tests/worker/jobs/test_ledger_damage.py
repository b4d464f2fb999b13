"""A ledger that is damaged, old or foreign: what can be read of it counts, and nothing raises."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Callable, Generator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from tests.support.bounds import frugal
from tests.worker.jobs.test_ledger import DONE, DROPPED, job, made
from worker.clock import SteadyClock, elapsed_seconds
from worker.horde.api import Job
from worker.jobs.durable_sqlite import DurableSqlite
from worker.jobs.ledger import FILE, Ledger
from worker.jobs.results import Failed, JobStage, Made
from worker.jobs.sqlite_format import Format
from worker.jobs.totals import LOST_POPS, read_totals

DAMAGES = 100  # of the fuzz test
SEED = 20

# A file of format 1, as SQLite's shell dumps it: of an open job, of a picture, and of a day.
FORMAT_1 = """
CREATE TABLE images (
    id TEXT PRIMARY KEY,
    job TEXT NOT NULL,
    place INTEGER NOT NULL,
    batch INTEGER NOT NULL,
    model TEXT NOT NULL,
    upload_url TEXT NOT NULL,
    over_at REAL NOT NULL,
    state TEXT NOT NULL DEFAULT 'popped',
    seed TEXT NOT NULL DEFAULT '0',
    webp BLOB,
    prompt TEXT NOT NULL DEFAULT '',
    use_nsfw_censor INTEGER NOT NULL DEFAULT 0,
    notes TEXT NOT NULL DEFAULT '[]',
    reason TEXT NOT NULL DEFAULT '',
    kudos REAL NOT NULL DEFAULT 0,
    is_drop INTEGER NOT NULL DEFAULT 0,
    ended_at REAL
);
INSERT INTO images VALUES('a-0','a-0',0,1,'Deliberate','https://put/a-0',1800000200.0,'popped','0',
    NULL,'',0,'[]','',0.0,0,NULL);
INSERT INTO images VALUES('b-0','b-0',0,1,'Deliberate','https://put/b-0',1800000200.0,'made','7',
    X'7069637475726573','a cat###',1,'[{"type": "lora", "value": "parse_failed", "ref": "1"}]','',
    0.0,0,NULL);
CREATE TABLE days (
    day TEXT, model TEXT, state TEXT, images INTEGER, kudos REAL,
    PRIMARY KEY (day, model, state)
);
INSERT INTO days VALUES('2026-11-30','Deliberate','submitted',40,200.0);
CREATE TABLE counters (name TEXT PRIMARY KEY, count INTEGER NOT NULL);
CREATE INDEX ended ON images (ended_at);
PRAGMA user_version = 1;
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / FILE


@pytest.fixture(autouse=True)
def tended_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.jobs.durable_sqlite.TEND_SECONDS", 0.0)
    monkeypatch.setattr("worker.jobs.durable_sqlite.RETRY_SECONDS", 0.0)


@pytest.fixture
def written(path: Path) -> Generator[sqlite3.Connection]:
    """The file of a worker that was killed, with an open job of two images and one picture."""
    with closing(Ledger(path)) as ledger:
        slots = job("a", images=2)
        ledger.popped(slots, "m", asked(2).asked)
        (other,) = job("b")
        ledger.popped([other], "m")
        ledger.made([made(other)])
    with closing(sqlite3.connect(path)) as db:
        yield db


def asked(images: int) -> Job:
    """What the horde handed out with `job("a", images)`."""
    ids = tuple(f"a-{i}" for i in range(images))
    return Job(
        ids=ids,
        model="m",
        payload={"prompt": "a secret prompt", "seed": "1"},
        ttl_seconds=200,
        upload_urls=tuple(f"https://put/{id}" for id in ids),
        popped_at=elapsed_seconds(),
    )


def test_a_file_of_the_format_before_is_taken_up_with_all_that_is_in_it(path: Path):
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as db:
        db.executescript(FORMAT_1)
    with closing(Ledger(path, clock=SteadyClock(lambda: 1_800_000_000.0, lambda: 0.0))) as ledger:
        assert not ledger.trouble
        lost, finished = ledger.owed()
        assert (lost.job, type(lost.results.images[0])) == (None, Failed)
        (image,) = finished.results.images
        assert isinstance(image, Made)
        assert (image.webp, image.seed, image.notes[0].ref) == (b"pictures", 7, "1")
        assert ledger.totals().images == {JobStage.submitted: 40}
        slots = job("a-new", images=2)
        ledger.popped(slots, "m", asked(2).asked)
        ledger.ended("b-0", DONE)
    assert [file.name for file in path.parent.iterdir()] == [FILE]


BAD_VALUES = [
    ("seed", "many"),
    ("seed", b"\x01"),
    ("notes", "[{"),
    ("notes", "[" * 50_000),
    ("notes", '[{"type": "spell", "value": "parse_failed"}]'),
    ("notes", "7"),
    ("place", "first"),
    ("place", -1),
    ("batch", b""),
    ("batch", 0),
    ("state", "lost"),
    ("state", ""),
    ("model", b"\xff\xfe"),
    ("upload_url", b"https"),
    ("over_at", "soon"),
    ("over_at", float("inf")),
    ("webp", "text"),
    ("prompt", b"\x00"),
    ("use_nsfw_censor", "perhaps"),
    ("reason", b"\xff"),
]


@pytest.mark.parametrize(("column", "value"), BAD_VALUES)
def test_an_image_whose_row_can_not_be_read_is_faulted_by_its_id(
    written: sqlite3.Connection,
    path: Path,
    column: str,
    value: object,
    caplog: pytest.LogCaptureFixture,
):
    with written:
        written.execute(f"UPDATE images SET {column} = ? WHERE id = 'b-0'", (value,))
    written.close()
    with closing(Ledger(path)) as ledger:
        whole, damaged = ledger.owed()
        assert whole.job is not None
        (image,) = damaged.results.images
        assert isinstance(image, Failed)
        assert f"its row in the ledger is damaged ({column}" in caplog.text
        assert image.slot.id == "b-0"
        assert image.slot.over_at > elapsed_seconds()
        ledger.ended("b-0", DROPPED)
        assert [owed.results.job_id for owed in ledger.owed()] == ["a-0"]
        assert not ledger.trouble


def test_an_image_of_which_only_the_end_is_damaged_has_not_ended(
    written: sqlite3.Connection, path: Path
):
    with written:
        written.execute("UPDATE images SET ended_at = 'yesterday' WHERE id = 'b-0'")
    written.close()
    with closing(Ledger(path)) as ledger:
        assert isinstance(ledger.owed()[1].results.images[0], Made)
        assert ledger.totals().open == 3


def test_text_that_is_no_unicode_costs_its_own_image_alone(written: sqlite3.Connection, path: Path):
    with written:
        written.execute("UPDATE images SET prompt = CAST(x'ff80' AS TEXT) WHERE id = 'b-0'")
        written.execute("UPDATE images SET job = CAST(x'ff80' AS TEXT) WHERE id = 'a-1'")
    written.close()
    with closing(Ledger(path)) as ledger:
        images = [image for owed in ledger.owed() for image in owed.results.images]
    assert {image.slot.id for image in images if isinstance(image, Failed)} == {"a-0", "a-1", "b-0"}


def test_a_row_that_is_damaged_up_to_its_id_is_removed_and_told(
    written: sqlite3.Connection, path: Path, caplog: pytest.LogCaptureFixture
):
    with written:
        written.execute("UPDATE images SET id = CAST(x'ff80' AS TEXT) WHERE id = 'b-0'")
    written.close()
    with closing(Ledger(path)) as ledger:
        assert [owed.results.job_id for owed in ledger.owed()] == ["a-0"]
        assert ledger.totals().open == 2
    assert "damaged up to its id" in caplog.text


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE counters",
        "ALTER TABLE images DROP COLUMN notes",
        "ALTER TABLE images RENAME COLUMN webp TO picture",
        "DROP TABLE jobs; CREATE VIEW jobs AS SELECT * FROM images",
        "DROP TRIGGER asked_no_more",
        "PRAGMA user_version = 0",
    ],
)
def test_a_file_whose_tables_are_not_as_they_should_be_is_put_aside_and_told(
    written: sqlite3.Connection, path: Path, statement: str, caplog: pytest.LogCaptureFixture
):
    written.executescript(statement)
    written.close()
    with closing(Ledger(path)) as ledger:
        assert ledger.owed() == []
        assert not ledger.trouble
    assert "put aside as" in caplog.text


def test_totals_count_what_can_be_read(written: sqlite3.Connection, path: Path):
    with written:
        written.execute("INSERT INTO days VALUES ('d', 'm', 'submitted', 3, 9.0)")
        written.execute("INSERT INTO days VALUES ('d', 'm', 'eaten', 4, 9.0)")
        written.execute("INSERT INTO days VALUES (x'ff', x'ff', 'faulted', 'many', 'inf')")
        written.execute("INSERT INTO counters VALUES (?, 'some')", (LOST_POPS,))
    written.close()
    totals = read_totals(path)
    assert (totals.images[JobStage.submitted], totals.kudos, totals.open) == (3, 9.0, 3)
    with closing(Ledger(path)) as ledger:
        assert ledger.totals() == totals


def test_text_that_the_disk_can_not_hold_is_written_without_what_is_wrong(path: Path):
    with closing(Ledger(path)) as ledger:
        (slot,) = job("a")
        ledger.popped([slot], "m\udcff")
        ledger.failed(Failed(slot, "no such file: \udcff\ud800"))
        (owed,) = ledger.owed()
        assert owed.results.images == (Failed(owed.results.images[0].slot, "no such file: ??"),)
        assert not ledger.trouble


def test_an_older_program_never_opens_a_newer_format(tmp_path: Path):
    """As the ledger of the next version of Dreamer will look to this one."""
    file, steps = tmp_path / "a.sqlite", ("CREATE TABLE a (b);", "CREATE TABLE c (d);")
    with closing(DurableSqlite(file, Format(steps))) as newer:
        newer.write(("INSERT INTO c VALUES (?)", [(1,)]))
    with closing(DurableSqlite(file, Format(steps[:1]))) as older:
        assert older.read("SELECT * FROM a") == []
    with closing(DurableSqlite(file.with_name("a.sqlite.version-2"), Format(steps))) as newer:
        assert len(newer.read("SELECT * FROM c")) == 1


# ---- bytes -----------------------------------------------------------------------------------


Files = dict[str, bytes]  # by their names


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> tuple[Files, Files]:
    """What lies on the disk while a worker runs, and when it has ended."""
    path = tmp_path_factory.mktemp("whole") / "state" / FILE
    with closing(Ledger(path)) as ledger:
        slots = job("a", images=2)
        ledger.popped(slots, "m", asked(2).asked)
        pictures = job("b", images=2)
        ledger.popped(pictures, "m")
        ledger.made([made(slot, random.Random(1).randbytes(9000)) for slot in pictures])
        for number, end in enumerate((DONE, DROPPED)):
            ended = job(f"ended-{number}")
            ledger.popped(ended, "m")
            ledger.ended(ended[0].id, end)
        ledger.count(LOST_POPS)
        killed = read_all(path.parent)
    del killed[f"{FILE}-shm"]  # its locks are those of a process that is gone
    return killed, read_all(path.parent)


def read_all(folder: Path) -> Files:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def test_no_damage_of_the_file_keeps_the_worker_from_starting_or_from_remembering(
    tmp_path: Path, states: tuple[Files, Files]
):
    for number in range(DAMAGES):
        live_with_damage(tmp_path / "fuzz", states, number)


@frugal
def live_with_damage(folder: Path, states: tuple[Files, Files], number: int) -> None:
    """Two lives over a file, or its write-ahead log, that is damaged in the way of this number."""
    draw = random.Random(SEED * 1_000_003 + number)
    files = draw.choice(states)
    hurt = draw.choice(sorted(files))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(damaged(content, draw) if name == hurt else content)
    path = folder / FILE
    with suppress(OSError):
        read_totals(path)
    with closing(Ledger(path)) as ledger:
        for owed in ledger.owed():
            for image in owed.results.images:
                ledger.ended(image.slot.id, DROPPED)
        slots = job("new", images=2)
        ledger.known([slot.id for slot in slots])
        ledger.popped(slots, "m", asked(2).asked)
        ledger.made([made(slots[0])])
        ledger.failed(Failed(slots[1], "why not"))
        ledger.count(LOST_POPS)
        ledger.drop_ages()
        ledger.totals()
        ledger.tend()
        assert not ledger.trouble, f"damage {number}"
    with closing(Ledger(path)) as later:
        assert "new-0" in [owed.results.job_id for owed in later.owed()], f"damage {number}"


def damaged(content: bytes, draw: random.Random) -> bytes:
    kind: Callable[[bytearray, random.Random], bytes] = draw.choice(
        (one_byte, thirty_bytes, a_sector, cut)
    )
    return kind(bytearray(content), draw)


def one_byte(content: bytearray, draw: random.Random) -> bytes:
    content[draw.randrange(len(content))] = draw.randrange(256)
    return bytes(content)


def thirty_bytes(content: bytearray, draw: random.Random) -> bytes:
    for _ in range(30):
        one_byte(content, draw)
    return bytes(content)


def a_sector(content: bytearray, draw: random.Random) -> bytes:
    at = draw.randrange(len(content))
    content[at : at + 512] = draw.randbytes(len(content[at : at + 512]))
    return bytes(content)


def cut(content: bytearray, draw: random.Random) -> bytes:
    return bytes(content[: draw.randrange(len(content))])
