"""The horde's lists of models: both formats, offline, and what a stranger may have written."""

from __future__ import annotations

import json
import time
from collections.abc import Generator
from pathlib import Path, PurePosixPath

import pytest

from tests.support.raw_server import Talk, raw_server, repeating, saying
from tests.support.reference_server import ReferenceServer, new_row, old_row, reference_server
from tests.support.sandbox_client import MovableClock
from worker.errors import DocumentMissing
from worker.models.files.checksums import Checksum
from worker.models.reference import Kind, ReferenceEntry, of_one_mind, read_list
from worker.models.selection import Candidates, choose
from worker.models.sites import SITES, read_queues, read_reference, read_uses, sites_of
from worker.net.cached_documents import Documents, Source

SHA, OTHER = "ab" * 32, "cd" * 32


def only(row: object, name: str = "A Model", kind: Kind = Kind.model) -> ReferenceEntry:
    (entry,) = read_list(json.dumps({name: row}), kind).entries
    return entry


def test_a_row_of_the_old_format():
    row = old_row("A Model", "a.ckpt", "https://host/a", SHA.upper(), style="Anime", nsfw=True)
    entry = only(row | {"inpainting": True, "size_on_disk_bytes": 7})
    assert (entry.name, entry.baseline, entry.style) == ("A Model", "stable diffusion 1", "anime")
    assert (entry.is_nsfw, entry.inpaints, entry.size_bytes) == (True, True, 7)
    (file,) = entry.files
    assert (file.path, file.url) == (PurePosixPath("compvis/a.ckpt"), "https://host/a")
    assert (file.sha256, file.size_bytes) == (SHA, 7)


def test_a_row_of_the_new_format_with_its_components():
    entry = only(
        new_row(
            "Z-Image-Turbo",
            {
                "file_name": "ae.safetensors",
                "file_url": "u",
                "file_purpose": "vae",
                "size_bytes": 1,
            },
            {"file_name": "z.safetensors", "file_url": "u", "sha256sum": SHA, "size_bytes": 2},
            {
                "file_name": "q.safetensors",
                "file_url": "u",
                "file_purpose": "text_encoders",
                "size_bytes": 3,
            },
            baseline="z_image_turbo",
        )
    )
    assert [str(file.path) for file in entry.files] == [
        "compvis/z.safetensors",
        "vae/ae.safetensors",
        "text_encoders/q.safetensors",
    ]
    assert entry.size_bytes == 6
    assert entry.files[1].sha256 == ""


def test_the_main_file_is_the_one_that_the_family_begins_with():
    config = {
        "files": [
            {
                "path": f"{stage}.safetensors",
                "sha256sum": SHA,
                "file_type": f"stable_cascade_{stage}",
            }
            for stage in ("stage_b", "stage_c")
        ],
        "download": [
            {"file_name": f"{stage}.safetensors", "file_url": "u"}
            for stage in ("stage_b", "stage_c")
        ],
    }
    entry = only({"baseline": "stable_cascade", "config": config})
    assert [file.path.stem for file in entry.files] == ["stage_c", "stage_b"]


@pytest.mark.parametrize("baseline", ["pixart", None, 7])
def test_a_family_that_nobody_knows_is_left_to_the_file(baseline: object):
    row = old_row("A Model", "a.ckpt", "https://host/a", SHA) | {"baseline": baseline}
    if baseline == 7:
        with pytest.raises(ValueError, match="baseline"):
            only(row)
    else:
        assert only(row).baseline == ""


@pytest.mark.parametrize("sha256", ["FIXME", "", "ab", None])
def test_what_is_no_sha256_is_none(sha256: str | None):
    row = old_row("A Model", "a.ckpt", "https://host/a", "")
    row["config"]["files"][0]["sha256sum"] = sha256
    assert only(row).files[0].sha256 == ""


@pytest.mark.parametrize("sha256", [SHA, "FIXME"])
def test_a_content_hash_counts_where_there_is_no_sha256(sha256: str):
    file = {"file_name": "v.safetensors", "file_url": "u", "content_hash": OTHER.upper()}
    row = new_row("A", {**file, "sha256sum": sha256})
    (file,) = only(row).files
    assert file.checksum == (Checksum(SHA) if sha256 == SHA else Checksum(OTHER, of_tensors=True))


@pytest.mark.parametrize(
    "name",
    ["../a.ckpt", "/etc/a.ckpt", "a/b.ckpt", "..\\a.ckpt", "C:a.ckpt", ".hidden.ckpt", "a\x00.ckpt",
     "a\n.ckpt", "..ckpt", "x" * 300 + ".ckpt"],
)  # fmt: skip
def test_a_file_name_never_leads_out_of_its_folder(name: str):
    good = old_row("Good", "good.ckpt", "https://host/a", SHA)
    bad = old_row("Bad", name, "https://host/a", SHA)
    read = read_list(json.dumps({"Bad": bad, "Good": good}), Kind.model)
    assert [entry.name for entry in read.entries] == ["Good"]
    assert read.problems[0].startswith("model reference, 'Bad': ")
    assert "\n" not in read.problems[0]


@pytest.mark.parametrize("text", ["", "<html>", "[]", "{}", "null", '{"a": 1}', '{"a": {}}', "{"])
def test_nonsense_is_no_list(text: str):
    with pytest.raises(ValueError, match=r"\w"):
        read_list(text, Kind.model)


def test_two_rows_may_share_a_file_only_where_they_agree():
    one, same, other = (
        only(old_row(name, "a.ckpt", "https://host/a", sha256), name)
        for name, sha256 in (("One", SHA), ("Same", SHA), ("Other", "cd" * 32))
    )
    agreed = of_one_mind([one, same, other])
    assert agreed.entries == (one, same)
    assert agreed.problems == ("model reference, 'Other': compvis/a.ckpt is another model's",)


def test_a_face_fixer_brings_only_the_file_that_is_read():
    row = old_row("GFPGAN", "GFPGANv1.4.pth", "https://host/g", SHA)
    row["config"]["download"].append({"file_name": "detection.pth", "file_url": "https://host/d"})
    assert [f.path.name for f in only(row, "GFPGAN", Kind.face_fixer).files] == ["GFPGANv1.4.pth"]


# ---- from the sites --------------------------------------------------------------------------


@pytest.fixture
def site() -> Generator[ReferenceServer]:
    with reference_server() as site:
        site.offer_model("Deliberate")
        yield site


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


@pytest.fixture
def documents(tmp_path: Path, clock: MovableClock) -> Documents:
    return Documents(tmp_path / "reference", "tester", now=clock)


LIST = "/reference/stable_diffusion.json"


def names(documents: Documents, *sites: str) -> list[str]:
    return [row.name for row in read_reference(documents, sites, [Kind.model]).models]


def test_a_list_is_asked_for_once_an_hour_and_sent_only_when_it_changed(
    site: ReferenceServer, documents: Documents, clock: MovableClock
):
    address = f"{site.url}/reference"
    for _ in range(2):
        assert names(documents, address) == ["Deliberate"]
    assert site.answers(LIST) == [200]
    clock.move(3601)
    assert names(documents, address) == ["Deliberate"]
    assert site.answers(LIST) == [200, 304]
    site.offer_model("Another")
    assert names(documents, address) == ["Deliberate"]
    clock.move(3601)
    assert names(documents, address) == ["Deliberate", "Another"]
    assert site.answers(LIST) == [200, 304, 200]


def test_a_copy_of_a_clock_that_was_ahead_is_asked_for_anew(
    site: ReferenceServer, documents: Documents, clock: MovableClock
):
    clock.move(365 * 86400)
    assert names(documents, f"{site.url}/reference") == ["Deliberate"]
    clock.move(-365 * 86400)
    site.offer_model("Another")
    assert names(documents, f"{site.url}/reference") == ["Deliberate", "Another"]


@pytest.mark.parametrize("garbage", [b"<html>", b"", b"{}", b"\xff\xfe", b'{"a": {"config": 3}}'])
def test_nonsense_leaves_the_last_good_copy(
    site: ReferenceServer, documents: Documents, clock: MovableClock, garbage: bytes
):
    assert names(documents, f"{site.url}/reference") == ["Deliberate"]
    site.pages[LIST] = garbage
    clock.move(7200)
    reference = read_reference(documents, (f"{site.url}/reference",), [Kind.model])
    assert [row.name for row in reference.models] == ["Deliberate"]
    (note,) = reference.notes
    assert "127.0.0.1" in note
    assert "the copy of 2 h ago is used" in note


@pytest.mark.parametrize("status", [404, 410, 500, 503])
def test_a_site_that_is_away_leaves_the_last_good_copy(
    site: ReferenceServer, documents: Documents, clock: MovableClock, status: int
):
    names(documents, f"{site.url}/reference")
    site.statuses[LIST] = status
    clock.move(7200)
    reference = read_reference(documents, (f"{site.url}/reference",), [Kind.model])
    assert [row.name for row in reference.models] == ["Deliberate"]
    assert f"HTTP {status}" in reference.notes[0]


def test_the_copy_serves_without_any_network(
    site: ReferenceServer, tmp_path: Path, documents: Documents, clock: MovableClock
):
    address = "http://127.0.0.1:9"
    assert read_reference(documents, (address,), [Kind.model]).models == ()
    names(documents, f"{site.url}/reference")
    clock.move(7200)
    again = Documents(tmp_path / "reference", "tester", now=clock)
    reference = read_reference(again, (address,), [Kind.model])
    assert [row.name for row in reference.models] == ["Deliberate"]
    assert "connection refused" in reference.notes[0]


@pytest.mark.parametrize("damage", ["", "{", '{"url": "x", "text": "nonsense"}'])
def test_a_damaged_copy_is_asked_for_again(
    site: ReferenceServer, tmp_path: Path, documents: Documents, damage: str
):
    names(documents, f"{site.url}/reference")
    (copy,) = (tmp_path / "reference").iterdir()
    copy.write_text(damage)
    assert names(documents, f"{site.url}/reference") == ["Deliberate"]
    assert site.answers(LIST) == [200, 200]


def test_the_new_format_comes_first_and_the_old_one_where_it_is_away(
    site: ReferenceServer, documents: Documents
):
    sites = (f"{site.url}/api/v2", f"{site.url}/reference")
    assert names(documents, *sites) == ["Deliberate"]
    download = {"file_name": "x.safetensors", "file_url": "https://host/x", "sha256sum": SHA}
    site.pages["/api/v2/image_generation"] = {"New": new_row("New", download)}
    fresh = Documents(documents._folder / "other", "tester")
    assert names(fresh, *sites) == ["New"]


def test_models_that_await_approval_are_known_and_win_their_names(
    site: ReferenceServer, documents: Documents, clock: MovableClock
):
    def row(name: str, file: str, sha256: str, baseline: str = "stable_diffusion_xl") -> object:
        download = {"file_name": file, "file_url": "https://host/x", "sha256sum": sha256}
        return new_row(name, download, baseline=baseline)

    address = f"{site.url}/api/v2"
    site.pages["/api/v2/image_generation"] = {
        "Renewed": row("Renewed", "r.safetensors", SHA),
        "Old": row("Old", "o.safetensors", SHA),
    }
    site.pages["/api/v2/image_generation/pending"] = {
        "Renewed": row("Renewed", "r.safetensors", "cd" * 32),
        "Qwen": row("Qwen", "q.safetensors", SHA, "qwen_image"),
        "Thief": row("Thief", "o.safetensors", "ef" * 32),
        "Broken": 3,
    }
    reference = read_reference(documents, (address,), [Kind.model])
    rows = reference.entries
    assert [name for name, entry in rows.items() if entry.is_pending] == ["Renewed", "Qwen"]
    assert rows["Renewed"].files[0].sha256 == "cd" * 32
    assert rows["Old"].files[0].sha256 == SHA, "no pending row takes an approved one's file"
    assert "Thief" not in rows
    assert any("Broken" in note for note in reference.notes)
    assert site.keys["/api/v2/image_generation/pending"] == "0000000000"
    chosen = choose(("all", "Qwen"), (), Candidates(reference.models, with_large=True))
    assert chosen.names == ("Old", "Qwen"), "words choose what was approved"
    clock.move(7200)
    site.pages.clear()
    assert names(documents, address) == ["Old", "Renewed", "Qwen"], "the last good copies serve"


@pytest.mark.parametrize("answer", [404, 401, 503, b"<html>", b"[]", b"{}"])
def test_a_site_without_models_that_await_approval_is_asked_and_nothing_is_said(
    site: ReferenceServer, documents: Documents, answer: int | bytes
):
    address, path = f"{site.url}/api/v2", "/api/v2/image_generation/pending"
    download = {"file_name": "x.safetensors", "file_url": "https://host/x", "sha256sum": SHA}
    site.pages["/api/v2/image_generation"] = {"New": new_row("New", download)}
    if isinstance(answer, int):
        site.statuses[path] = answer
    else:
        site.pages[path] = answer
    reference = read_reference(documents, (address,), [Kind.model])
    assert [row.name for row in reference.models] == ["New"]
    assert not reference.notes
    assert not reference.missing


def test_an_answer_without_end_is_not_read(
    site: ReferenceServer, documents: Documents, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("worker.net.cached_documents.MOST_BYTES", 10)
    source = Source("list", (f"{site.url}{LIST}",), str, 60)
    with pytest.raises(DocumentMissing, match="more than"):
        documents.read(source)


def test_a_horde_on_this_machine_has_models_of_its_own():
    assert sites_of(None, "https://aihorde.net") == SITES
    assert sites_of(None, "http://127.0.0.1:7001") == ()
    assert sites_of("none", "https://aihorde.net") == ()
    assert sites_of("https://example.org", "http://localhost") == ("https://example.org",)


def test_how_often_models_are_used(site: ReferenceServer, documents: Documents):
    site.pages["/api/v2/stats/img/models"] = {"day": {}, "month": {"A": 7, "B": 9}, "total": {}}
    assert read_uses(documents, site.url) == {"A": 7, "B": 9}


def test_what_waits_for_each_model_and_never_from_an_old_copy(
    site: ReferenceServer, documents: Documents, clock: MovableClock
):
    page = "/api/v2/status/models"
    site.pages[page] = [{"name": "A", "count": 3, "queued": 80.0}, {"name": "B", "queued": 5}]
    queues = read_queues(documents, site.url)
    assert {name: queue.share for name, queue in queues.items()} == {"A": 20.0, "B": 5.0}
    site.statuses[page] = 503
    clock.move(61)
    with pytest.raises(DocumentMissing, match="HTTP 503"):
        read_queues(documents, site.url)


@pytest.mark.parametrize(
    ("talk", "why"),
    [
        (repeating(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n", b"[", 0.02), "too slow"),
        (repeating(b"HTTP/1.1 200 OK\r\n\r\n", b"[", 0.02), "too slow"),
        (saying(b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n"), "more than 5 redirects"),
        (saying(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n["), "the answer was cut off"),
    ],
    ids=["a drip", "a drip without an end", "in circles", "half of it"],
)
def test_a_site_that_does_not_come_to_an_end_is_given_up(tmp_path: Path, talk: Talk, why: str):
    documents = Documents(tmp_path, "tester", whole_seconds=0.4)
    began = time.monotonic()
    with raw_server(talk) as site, pytest.raises(DocumentMissing, match=why):
        documents.read(Source("a list", (site.url,), str, 0.0))
    assert time.monotonic() - began < 5
