from __future__ import annotations

import hashlib
import math
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from hordelib.errors import DownloadFailed, DownloadRefused
from tests.support.civitai_server import STEP_BYTES, CivitaiServer, Model, Version, civitai_server
from worker.clock import elapsed_seconds
from worker.net.downloads import Download, Downloader
from worker.net.fetch import TryLater, Web, wait_until_next_try
from worker.net.refusal_memo import DownloadMemo

CONTENT = hashlib.shake_128(b"weights").digest(5 * STEP_BYTES)
TOKEN = "a-secret-token"


@pytest.fixture
def site() -> Generator[CivitaiServer]:
    with civitai_server(Model(1, "Ink", [Version(11, CONTENT)])) as site:
        yield site


def soon(seconds: float = 10.0) -> float:
    return elapsed_seconds() + seconds


def downloader(web: Web | None = None, at_once: int = 4) -> Downloader:
    return Downloader(web or Web("a worker"), at_once=at_once, pause_seconds=0)


def wish(site: CivitaiServer, folder: Path, content: bytes = CONTENT) -> Download:
    return Download(
        url=f"{site.url}/api/download/models/11",
        target=folder / "lora" / "1-11.safetensors",
        sha256=hashlib.sha256(content).hexdigest(),
        most_bytes=len(CONTENT),
    )


def part(download: Download) -> Path:
    return download.target.with_name(download.target.name + ".part")


def test_a_file_comes_whole_and_only_once(site: CivitaiServer, tmp_path: Path):
    download = wish(site, tmp_path)
    for _ in range(2):
        downloader().fetch(download, soon())
    assert download.target.read_bytes() == CONTENT
    assert not part(download).exists()
    assert len(site.downloads()) == 1


def test_a_cut_connection_is_resumed_where_it_broke_off(site: CivitaiServer, tmp_path: Path):
    site.broken_downloads = 4  # more than the tries that may bring nothing
    download = wish(site, tmp_path)
    downloader().fetch(download, soon())
    assert download.target.read_bytes() == CONTENT
    ranges = [headers.get("Range") for headers in site.downloads()]
    assert ranges == [None, *(f"bytes={n * STEP_BYTES}-" for n in (1, 2, 3, 4))]


def test_an_earlier_try_is_gone_on_with(site: CivitaiServer, tmp_path: Path):
    download = wish(site, tmp_path)
    download.target.parent.mkdir()
    part(download).write_bytes(CONTENT[:-7])
    downloader().fetch(download, soon())
    assert download.target.read_bytes() == CONTENT
    assert site.downloads()[0]["Range"] == f"bytes={len(CONTENT) - 7}-"


def test_a_complete_part_needs_no_request(site: CivitaiServer, tmp_path: Path):
    download = wish(site, tmp_path)
    download.target.parent.mkdir()
    part(download).write_bytes(CONTENT)
    downloader().fetch(download, soon())
    assert download.target.read_bytes() == CONTENT
    assert site.downloads() == []


@pytest.mark.parametrize("left_over", [b"something else", CONTENT + b"too long", b"x" * 20480])
def test_a_wrong_part_is_begun_anew(site: CivitaiServer, tmp_path: Path, left_over: bytes):
    download = wish(site, tmp_path)
    download.target.parent.mkdir()
    part(download).write_bytes(left_over)
    downloader().fetch(download, soon())
    assert download.target.read_bytes() == CONTENT


def test_a_site_without_ranges_sends_all_of_it(site: CivitaiServer, tmp_path: Path):
    site.ignores_ranges = True
    site.broken_downloads = 1
    download = wish(site, tmp_path)
    downloader().fetch(download, soon())
    assert download.target.read_bytes() == CONTENT


def test_a_wrong_sha256_leaves_nothing(site: CivitaiServer, tmp_path: Path):
    download = wish(site, tmp_path, content=b"another file")
    with pytest.raises(DownloadRefused, match="its checksum differs"):
        downloader().fetch(download, soon())
    assert list(download.target.parent.iterdir()) == []
    assert len(site.downloads()) == 1


def test_a_file_that_is_too_large_is_not_begun(site: CivitaiServer, tmp_path: Path):
    site.models[0].versions[0].content += b"more"
    download = wish(site, tmp_path)
    with pytest.raises(DownloadRefused, match="larger than"):
        downloader().fetch(download, soon())
    assert list(download.target.parent.iterdir()) == []


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 410, 451])
def test_a_last_word_is_asked_for_once(site: CivitaiServer, tmp_path: Path, status: int):
    site.statuses["/api/download/models/11"] = status
    with pytest.raises(DownloadRefused, match=str(status)) as caught:
        downloader().fetch(wish(site, tmp_path), soon())
    assert caught.value.valid_seconds >= 3600
    assert len(site.asked) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_may_pass_is_tried_again(site: CivitaiServer, tmp_path: Path, status: int):
    site.statuses["/api/download/models/11"] = status
    with pytest.raises(TryLater, match=str(status)):
        downloader().fetch(wish(site, tmp_path), soon())
    assert len(site.asked) == 3


def test_a_slow_drip_ends_at_the_deadline_and_stays_for_later(site: CivitaiServer, tmp_path: Path):
    site.only_one_step = True
    download = wish(site, tmp_path)
    started = time.monotonic()
    with pytest.raises(DownloadFailed, match="too slow"):
        downloader().fetch(download, started + 0.3)
    assert 0.3 <= time.monotonic() - started < 30, "the site itself never ends"
    assert part(download).stat().st_size >= STEP_BYTES


def test_a_site_that_is_not_there_is_named(tmp_path: Path):
    with civitai_server() as site:
        gone = wish(site, tmp_path)
    with pytest.raises(DownloadFailed, match=r"127\.0\.0\.1: connection refused"):
        downloader().fetch(gone, soon())


def test_memory_does_not_grow_with_the_file(site: CivitaiServer, tmp_path: Path):
    content = bytes(24 << 20)
    site.models[0].versions[0].content = content
    download = replace(wish(site, tmp_path, content), most_bytes=len(content))
    download.target.parent.mkdir()
    part(download).write_bytes(content[: 8 << 20])
    tracemalloc.start()
    downloader().fetch(download, soon())
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert download.target.stat().st_size == len(content)
    assert peak_bytes < 4 << 20


def test_threads_that_want_one_file_download_it_once(site: CivitaiServer, tmp_path: Path):
    download = wish(site, tmp_path)
    one = downloader()
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(one.fetch, download, soon()) for _ in range(8)]
    assert [fetched.exception() for fetched in waiting] == [None] * 8
    assert download.target.read_bytes() == CONTENT
    assert len(site.downloads()) == 1


def test_a_job_waits_for_anothers_download_only_till_its_deadline(
    site: CivitaiServer, tmp_path: Path
):
    site.only_one_step = True
    one = downloader()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(one.fetch, wish(site, tmp_path), soon(0.6))
        assert site.dripping.wait(5)
        with pytest.raises(DownloadFailed, match="another job's download"):
            one.fetch(wish(site, tmp_path), soon(0.1))
        with pytest.raises(DownloadFailed, match="too slow"):
            first.result()


def test_a_file_that_another_process_downloads_is_left_to_it(site: CivitaiServer, tmp_path: Path):
    download = wish(site, tmp_path)
    download.target.parent.mkdir()
    holds = "import fcntl,sys; f = open(sys.argv[1], 'ab'); fcntl.flock(f, 2); print(flush=True)"
    with subprocess.Popen(
        [sys.executable, "-c", holds + "; input()", str(part(download))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(DownloadFailed, match="another process is downloading it"):
            downloader().fetch(download, soon())
        other.kill()
    downloader().fetch(download, soon())
    assert download.target.read_bytes() == CONTENT


def test_only_so_many_files_come_at_once(site: CivitaiServer, tmp_path: Path):
    site.only_one_step = True
    one = downloader(at_once=1)
    other = Download(url=f"{site.url}/other", target=tmp_path / "other", sha256="", most_bytes=1)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(one.fetch, wish(site, tmp_path), soon(0.6))
        assert site.dripping.wait(5)
        with pytest.raises(DownloadFailed, match="other downloads"):
            one.fetch(other, soon(0.1))
        assert first.exception() is not None


def test_a_disk_that_can_not_be_written_is_a_failed_download(site: CivitaiServer, tmp_path: Path):
    (tmp_path / "lora").write_text("a file where the folder should be")
    with pytest.raises(DownloadFailed, match=r"1-11\.safetensors"):
        downloader().fetch(wish(site, tmp_path), soon())


def test_the_token_goes_to_its_site_and_to_no_other(site: CivitaiServer, tmp_path: Path):
    with civitai_server(*site.models) as storage:
        site.redirect = storage.url
        web = Web("a worker", {site.url: TOKEN})
        downloader(web).fetch(wish(site, tmp_path), soon())
    assert [headers.get("Authorization") for _, headers in site.asked] == [f"Bearer {TOKEN}"]
    assert len(storage.asked) == 1
    assert TOKEN not in str(storage.asked)
    assert TOKEN not in repr(web)


def test_no_message_holds_a_token_or_the_rest_of_an_address(site: CivitaiServer, tmp_path: Path):
    with civitai_server() as storage:
        site.redirect = storage.url
        web = Web("a worker", {site.url: TOKEN})
        with pytest.raises(DownloadRefused) as caught:
            downloader(web).fetch(wish(site, tmp_path), soon())
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["http://example.org/x", "ftp://127.0.0.1/x", "file:///etc/passwd", "/etc/passwd"]
)
def test_only_https_is_spoken_to_the_world(tmp_path: Path, url: str):
    download = Download(url=url, target=tmp_path / "x", sha256="", most_bytes=1)
    with pytest.raises(DownloadFailed, match="not safe"):
        downloader().fetch(download, soon())


def test_a_redirect_to_an_unsafe_place_is_not_followed(site: CivitaiServer, tmp_path: Path):
    site.redirect = "http://10.0.0.1"
    with pytest.raises(DownloadFailed, match="not safe"):
        downloader().fetch(wish(site, tmp_path), soon())


def test_a_redirect_in_circles_ends(site: CivitaiServer, tmp_path: Path):
    site.redirect = site.url
    with pytest.raises(DownloadFailed, match="redirects"):
        downloader().fetch(wish(site, tmp_path), soon())


def test_a_redirect_to_the_login_is_a_last_word(site: CivitaiServer, tmp_path: Path):
    site.redirect = f"{site.url}/login?returnUrl="
    with pytest.raises(DownloadRefused, match="civitai_api_token"):
        downloader().fetch(wish(site, tmp_path), soon())


def test_the_memo_survives_a_restart_and_lapses(tmp_path: Path):
    now = [1000.0]
    memo = DownloadMemo(tmp_path / "memo.json", now=lambda: now[0])
    memo.remember_refusal("LoRA 1", DownloadRefused("gone", 60))
    memo.remember_refusal("LoRA 2", DownloadRefused("not kept", 0))
    memo.remember_version("LoRA 3", 7, 60)
    again = DownloadMemo(tmp_path / "memo.json", now=lambda: now[0])
    again.raise_if_refused("LoRA 2")
    again.raise_if_refused("LoRA 3")
    assert [again.version(key) for key in ("LoRA 1", "LoRA 2", "LoRA 3")] == [0, 0, 7]
    with pytest.raises(DownloadRefused, match="gone, as it was before"):
        again.raise_if_refused("LoRA 1")
    now[0] += 61
    again.raise_if_refused("LoRA 1")
    assert again.version("LoRA 3") == 0


@pytest.mark.parametrize("content", ["", "{", '{"a": 1}', "[]"])
def test_a_damaged_memo_is_begun_anew(tmp_path: Path, content: str):
    (tmp_path / "memo.json").write_text(content)
    memo = DownloadMemo(tmp_path / "memo.json")
    memo.raise_if_refused("a")
    memo.remember_refusal("a", DownloadRefused("gone", 60))
    with pytest.raises(DownloadRefused, match="gone"):
        DownloadMemo(tmp_path / "memo.json").raise_if_refused("a")


def test_a_word_of_a_clock_that_was_far_ahead_does_not_count(tmp_path: Path):
    a_year = 365 * 86400.0
    ahead = DownloadMemo(tmp_path / "memo.json", now=lambda: time.time() + a_year)
    ahead.remember_refusal("a", DownloadRefused("gone", 60))
    DownloadMemo(tmp_path / "memo.json").raise_if_refused("a")


def test_a_disk_that_is_short_of_room_leaves_what_has_come(site: CivitaiServer, tmp_path: Path):
    download = wish(site, tmp_path)
    part(download).parent.mkdir()
    part(download).write_bytes(CONTENT[:5000])
    with pytest.raises(DownloadFailed, match="no room on the disk: free 1 MiB or more") as caught:
        downloader().fetch(replace(download, room_bytes=len(CONTENT) - 1), soon())
    assert not isinstance(caught.value, DownloadRefused)
    assert part(download).read_bytes() == CONTENT[:5000]
    downloader().fetch(download, soon())
    assert download.target.read_bytes() == CONTENT


def test_who_asks_for_a_day_is_asked_again_after_ten_minutes(monkeypatch: pytest.MonkeyPatch):
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    for asked in (86400.0, math.inf, 7.0, None):
        wait_until_next_try(TryLater("away", asked), 1.0, math.inf)
    assert slept == [600.0, 600.0, 7.0, 1.0]
