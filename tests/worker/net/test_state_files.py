"""Small files that the worker keeps: damaged ones cost what they held, and nothing else."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from hordelib.errors import DownloadRefused
from hordelib.files.whole_files import write_whole
from hordelib.memory.corrections import Corrections
from tests.support.small_disk import small_disk
from worker.errors import DocumentMissing
from worker.jobs.ledger import FILE as LEDGER
from worker.jobs.ledger import Ledger
from worker.loras.files import LoraRecord
from worker.loras.store import LoraStore, Quota
from worker.models.files.checksums import Checksum, VerifiedFiles
from worker.net.cached_documents import Documents, Source
from worker.net.refusal_memo import DownloadMemo
from worker.net.untrusted import read_json
from worker.prediction.seconds_file import Learnt, SecondsFile, TimedJob
from worker.service.orders import Order, Orders
from worker.service.state_folder import StateFolder

DAMAGES = 150  # of each file
RECORDS = TypeAdapter(LoraRecord)
OF_A = hashlib.sha256(b"a").hexdigest()


def made_order(folder: Path) -> Path:
    Orders(folder).give(Order.pause)
    return folder / "order"


def read_order(folder: Path) -> None:
    given = Orders(folder).given()
    assert given is None or given.order in Order


def made_seconds(folder: Path) -> Path:
    SecondsFile(folder / "seconds", "a card").write(
        {"sd1": Learnt((TimedJob({"step": 1.0}, 2.0),))}
    )
    return folder / "seconds"


def read_seconds(folder: Path) -> None:
    for learnt in SecondsFile(folder / "seconds", "a card").read().values():
        assert all(job.seconds > 0 for job in learnt.jobs)


def made_memo(folder: Path) -> Path:
    memo = DownloadMemo(folder / "asked.json")
    memo.remember_version("one", 7, 86400.0)
    memo.remember_refusal("other", DownloadRefused("no", 86400.0))
    return folder / "asked.json"


def read_memo(folder: Path) -> None:
    memo = DownloadMemo(folder / "asked.json")
    memo.version("one")
    memo.remember_version("one", 7, 86400.0)


def made_verified(folder: Path) -> Path:
    (folder / "a").write_bytes(b"a")
    VerifiedFiles(folder).found(folder / "a")
    return folder / "verified.json"


def read_verified(folder: Path) -> None:
    VerifiedFiles(folder).known(folder / "a")
    VerifiedFiles(folder).remember(folder / "a", Checksum("ab" * 32))


def made_corrections(folder: Path) -> Path:
    Corrections("a card", folder / "memory.json").put("sd1", 2.0)
    return folder / "memory.json"


def read_corrections(folder: Path) -> None:
    assert 0 < Corrections("a card", folder / "memory.json").of("sd1") <= 4


def made_record(folder: Path) -> Path:
    (folder / "1-7.safetensors").write_bytes(b"a")
    about = LoraRecord(name="Ink", model_id=1, version_id=7, sha256=OF_A, size_bytes=1)
    write_whole(folder / "1-7.dreamer.json", RECORDS.dump_json(about))
    return folder / "1-7.dreamer.json"


def read_record(folder: Path) -> None:
    store = LoraStore(folder, Quota(lambda: 1 << 20, 0, lambda: 1 << 30))
    assert all(file.about.version_id >= 0 for file in store.files())
    (folder / "1-7.safetensors").write_bytes(b"a")


COPY = Source("list", (), lambda text: read_json(TypeAdapter(dict[str, int]), text.encode()), 60)


def made_copy(folder: Path) -> Path:
    copy: dict[str, object] = {"url": "u", "text": '{"a": 1}', "etag": "e", "checked_at": 1.0}
    write_whole(folder / "list.json", TypeAdapter(dict[str, object]).dump_json(copy))
    return folder / "list.json"


def read_copy(folder: Path) -> None:
    with suppress(DocumentMissing):
        Documents(folder, "a worker").read(COPY)


def made_pid(folder: Path) -> Path:
    (folder / "pid").write_text("4711")
    return folder / "pid"


def read_pid(folder: Path) -> None:
    assert isinstance(StateFolder(folder).holder, int | None)


KEPT: dict[str, tuple[Callable[[Path], Path], Callable[[Path], None]]] = {
    "order": (made_order, read_order),
    "seconds": (made_seconds, read_seconds),
    "memo": (made_memo, read_memo),
    "verified": (made_verified, read_verified),
    "corrections": (made_corrections, read_corrections),
    "record": (made_record, read_record),
    "copy": (made_copy, read_copy),
    "pid": (made_pid, read_pid),
}


def damaged(whole: bytes, chance: random.Random) -> bytes:
    """A byte, thirty, or a number changed, or the end cut off."""
    content = bytearray(whole)
    for _ in range(chance.choice((0, 1, 1, 30))):
        content[chance.randrange(len(content))] = chance.choice((0, 0x22, 0x30, 0x39, 0x7B, 0xFF))
    if chance.random() < 0.2:
        at = chance.randrange(len(content))
        content[at:at] = chance.choice((b"9" * 5000, b"[" * 5000, b"-", b"1e999", b"null"))
    return bytes(content[: chance.randint(0, len(content)) if chance.random() < 0.3 else None])


@pytest.mark.parametrize("name", KEPT)
def test_a_small_file_that_is_damaged_stops_nothing(name: str, tmp_path: Path):
    make, read = KEPT[name]
    file = make(tmp_path)
    read(tmp_path)
    whole = make(tmp_path).read_bytes()
    for seed in range(DAMAGES):
        file.write_bytes(damaged(whole, random.Random(seed)))
        read(tmp_path)


def known_seconds(folder: Path) -> object:
    return SecondsFile(folder / "seconds", "a card").read()["sd1"].jobs[0].seconds


def known_copy(folder: Path) -> object:
    return Documents(folder, "a worker").read(COPY).value


def known_record(folder: Path) -> object:
    return LoraStore(folder, Quota(lambda: 1 << 20, 0, lambda: 1 << 30)).files()[0].about.name


# What a file still says, and of which of its objects a later version may have more fields.
FIELDS: dict[str, tuple[Callable[[Path], object], tuple[tuple[str | int, ...], ...]]] = {
    "seconds": (known_seconds, ((), ("families", "sd1"), ("families", "sd1", "jobs", 0))),
    "memo": (lambda folder: DownloadMemo(folder / "asked.json").version("one"), (("one",),)),
    "verified": (lambda folder: VerifiedFiles(folder).known(folder / "a"), (("a",),)),
    "corrections": (lambda folder: Corrections("a card", folder / "memory.json").of("sd1"), ((),)),
    "record": (known_record, ((),)),
    "copy": (known_copy, ((),)),
}


def at(content: Any, place: tuple[str | int, ...]) -> dict[str, object]:
    for key in place:
        content = content[key]
    return content


@pytest.mark.parametrize("name", FIELDS)
def test_a_small_file_of_another_version_is_taken_up_or_begun_anew(name: str, tmp_path: Path):
    make, read = KEPT[name]
    know, places = FIELDS[name]
    file = make(tmp_path)
    whole, known = file.read_text("utf-8"), know(tmp_path)
    for place in places:
        content = json.loads(whole)
        at(content, place).update({"of a later version": {"x": [1]}})
        file.write_text(json.dumps(content), "utf-8")
        assert know(tmp_path) == known
        for field in list(at(json.loads(whole), place)):
            content = json.loads(whole)
            del at(content, place)[field]
            file.write_text(json.dumps(content), "utf-8")
            read(tmp_path)


@pytest.mark.parametrize("name", ["seconds", "corrections"])
@pytest.mark.parametrize("content", ['{"version": 2, "device": "a card"}', "[1, 2", "\0", '"a"'])
def test_what_was_learnt_by_another_version_is_put_aside_and_told_in_a_line(
    name: str, content: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    make, read = KEPT[name]
    file = make(tmp_path)
    file.write_text(content, "utf-8")
    read(tmp_path)
    make(tmp_path)
    aside = file.with_name(f"{file.name}.unread")
    assert aside.read_text("utf-8") == content
    (told,) = caplog.messages
    assert told.startswith(f"{file}: damaged, or of another version: what was learnt of ")
    assert told.endswith(f"; put aside as {aside.name}")
    assert "\n" not in told


def test_a_download_whose_record_can_not_be_read_goes_and_that_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO")
    made_record(tmp_path).write_text('{"name": {"en": "Ink"}, "version_id": 7}', "utf-8")
    read_record(tmp_path)
    assert "1-7.safetensors has a record that can't be read: removed" in caplog.text


def test_a_record_without_a_version_lets_its_file_go(tmp_path: Path):
    """Files with one were never removed, so that others found no room."""
    file = made_record(tmp_path)
    about = replace(RECORDS.validate_json(file.read_bytes()), version_id=0)
    write_whole(file, RECORDS.dump_json(about))
    store = LoraStore(tmp_path, Quota(lambda: 1 << 20, 0, lambda: 1 << 30))
    assert store.files() == []
    assert not list(tmp_path.iterdir())


def test_a_disk_without_room_for_another_file_stops_nothing(tmp_path: Path):
    """All its inodes are used up, although there are bytes."""
    with small_disk(tmp_path / "disk", 1000, "rw,nr_inodes=5") as disk:
        (disk / "taken").touch()
        with suppress(OSError):
            for number in range(10):
                (disk / f"{number}").touch()
        assert not (disk / "9").exists()
        state = StateFolder.open(disk / "state")
        ledger = Ledger(disk / "state" / LEDGER)
        assert ledger.totals().open == 0
        ledger.close()
        state.close()
        Orders(disk / "state").begin()
        VerifiedFiles(disk).remember(disk / "taken", Checksum("ab" * 32))
        Corrections("a card", disk / "memory.json").put("sd1", 2.0)
        SecondsFile(disk / "seconds", "a card").write({})
