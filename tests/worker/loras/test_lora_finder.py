from __future__ import annotations

import hashlib
import json
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from hordelib.errors import BaselineMismatch, DownloadFailed, DownloadRefused
from hordelib.job.notes import MetadataValue
from hordelib.job.payload import LoraRequest
from tests.support.civitai_server import CivitaiServer, Model, Version, civitai_server, safetensors
from worker.clock import elapsed_seconds
from worker.loras.adapters import Adapters, Search
from worker.loras.civitai import Civitai, Hordeling, triggers
from worker.loras.finder import LORA, TI, Kind, LoraFinder, Wanted
from worker.loras.store import LoraStore, Quota
from worker.net.downloads import Downloader
from worker.net.fetch import Web
from worker.net.refusal_memo import DownloadMemo

SD1, SDXL, FLUX = "stable diffusion 1", "stable_diffusion_xl", "flux_1"
INK = Model(
    100,
    "Ink Wash",
    [
        Version(1003, base_model="SDXL 1.0", triggers=("ink xl",)),
        Version(1002, triggers=("ink style, ", "<lora:ink:1>", "ink style")),
        Version(1001),
    ],
)
PICKLE = Version(2001, file_name="old.pt")


@pytest.fixture
def site() -> Generator[CivitaiServer]:
    with civitai_server(
        INK,
        Model(200, "Old Style", [PICKLE]),
        Model(201, "Half Old", [Version(2012, file_name="x.ckpt"), Version(2011)]),
        Model(300, "Naughty", [Version(3001)], nsfw=True),
        Model(400, "A Checkpoint", [Version(4001)], type="Checkpoint"),
        Model(500, "Early", [Version(5001, availability="EarlyAccess")]),
        Model(600, "Swapped", [Version(6001, sha256="ab" * 32)]),
        Model(700, "Ink Wash Deluxe", [Version(7001)]),
        Model(800, "No Tensors", [Version(8001, b"<html>please log in</html>")]),
        Model(900, "Bad Hands", [Version(9001), Version(9000)], type="TextualInversion"),
        Model(901, "Easy", [PICKLE], type="TextualInversion"),
    ) as site:
        yield site


def make_finder(
    site: CivitaiServer,
    folder: Path,
    kind: Kind = LORA,
    *,
    most_bytes: int = 30 << 20,
    token: str = "",
    nsfw: bool = True,
) -> LoraFinder:
    web = Web("a worker", {site.url: token}, pause_seconds=0)
    return LoraFinder(
        kind,
        LoraStore(folder, Quota(lambda: most_bytes, 0, lambda: 1 << 40)),
        Civitai(web, (site.url,), nsfw=lambda: nsfw),
        Downloader(web, pause_seconds=0),
        DownloadMemo(folder / "asked.json"),
    )


def find(
    finder: LoraFinder, name: str, baseline: str = SD1, *, job: str = "a job", **more: Any
) -> tuple[str, str]:
    found = finder.find(Wanted(name, baseline, **more), job_id=job, deadline=elapsed_seconds() + 10)
    assert found.path.read_bytes() == safetensors()
    return found.path.stem, found.about.name


@pytest.fixture
def finder(site: CivitaiServer, tmp_path: Path) -> LoraFinder:
    return make_finder(site, tmp_path)


def test_a_model_id_gets_the_newest_version_that_fits(finder: LoraFinder):
    assert find(finder, "100", SD1) == ("100-1002", "Ink Wash")
    assert find(finder, "100", SDXL) == ("100-1003", "Ink Wash")


def test_a_version_id_gets_this_version(finder: LoraFinder):
    assert find(finder, "1001", is_version=True) == ("100-1001", "Ink Wash")


@pytest.mark.parametrize("name", ["Ink Wash", "ink wash", "Ink Wahs"])
def test_a_name_gets_the_model_that_is_called_so(finder: LoraFinder, name: str):
    assert find(finder, name) == ("100-1002", "Ink Wash")


def test_a_search_result_of_another_name_is_not_taken(finder: LoraFinder):
    with pytest.raises(DownloadRefused, match="'ink'"):
        find(finder, "ink")


def test_what_is_known_of_a_file_comes_with_it(finder: LoraFinder):
    about = finder.find(Wanted("100", SD1), job_id="j", deadline=elapsed_seconds() + 10).about
    assert about.triggers == ("ink style", "ink")
    assert (about.base_model, about.version_name) == ("SD 1.5", "v1002")
    assert about.sha256 == hashlib.sha256(safetensors()).hexdigest()


def test_a_file_that_is_here_asks_nobody_even_after_a_restart(
    site: CivitaiServer, tmp_path: Path, finder: LoraFinder
):
    find(finder, "100")
    asked = len(site.asked)
    again = make_finder(site, tmp_path)
    assert find(again, "100") == ("100-1002", "Ink Wash")
    assert find(again, "1002", is_version=True) == ("100-1002", "Ink Wash")
    assert len(site.asked) == asked


def test_a_model_id_is_not_served_by_an_older_version_while_the_site_answers(
    site: CivitaiServer, finder: LoraFinder
):
    find(finder, "1001", is_version=True)
    assert find(finder, "100") == ("100-1002", "Ink Wash")


def test_what_is_here_serves_while_the_site_is_away(site: CivitaiServer, finder: LoraFinder):
    find(finder, "1001", is_version=True)
    site.statuses |= {"/api/v1/models/100": 503, "/api/v1/models": 404}
    assert find(finder, "100") == ("100-1001", "Ink Wash")
    assert find(finder, "Ink Wash") == ("100-1001", "Ink Wash")
    assert find(finder, "Ink Wahs") == ("100-1001", "Ink Wash")
    with pytest.raises(DownloadFailed, match="HTTP 404"):
        find(finder, "Something Else")
    with pytest.raises(DownloadFailed, match="HTTP 503"):
        find(finder, "100", SDXL)


def test_an_owners_file_comes_first(site: CivitaiServer, tmp_path: Path, finder: LoraFinder):
    (tmp_path / "INK WASH.safetensors").write_bytes(safetensors())
    assert find(finder, "Ink Wash") == ("INK WASH", "INK WASH")
    assert site.asked == []


def test_a_file_that_vanished_is_downloaded_again(tmp_path: Path, finder: LoraFinder):
    find(finder, "100")
    (tmp_path / "100-1002.safetensors").unlink()
    assert find(finder, "100") == ("100-1002", "Ink Wash")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("200", "no safetensors file"),
        ("400", "is a Checkpoint"),
        ("500", "early access"),
        ("600", "its checksum differs"),
        ("800", "not a safetensors file"),
        ("999", "HTTP 404"),
        ("Nobody's", "finds none"),
    ],
)
def test_what_can_not_be_had_is_told_once_and_remembered(
    site: CivitaiServer, tmp_path: Path, finder: LoraFinder, name: str, reason: str
):
    with pytest.raises(DownloadRefused, match=reason):
        find(finder, name)
    asked = len(site.asked)
    with pytest.raises(DownloadRefused, match=reason):
        find(make_finder(site, tmp_path), name)
    assert len(site.asked) == asked
    assert [path.name for path in tmp_path.iterdir()] == ["asked.json"]


@pytest.mark.parametrize("status", [401, 403, 451])
def test_a_token_is_worth_a_new_try(site: CivitaiServer, tmp_path: Path, status: int):
    site.statuses["/api/download/models/1002"] = status
    with pytest.raises(DownloadRefused, match=str(status)):
        find(make_finder(site, tmp_path), "100")
    site.statuses.clear()
    with pytest.raises(DownloadRefused, match=str(status)):
        find(make_finder(site, tmp_path), "100")
    assert find(make_finder(site, tmp_path, token="t"), "100") == ("100-1002", "Ink Wash")


def test_an_older_version_serves_where_the_newest_is_a_pickle(finder: LoraFinder):
    assert find(finder, "201") == ("201-2011", "Half Old")


def test_nsfw_files_are_only_for_workers_that_are(site: CivitaiServer, tmp_path: Path):
    with pytest.raises(DownloadRefused, match="is NSFW"):
        find(make_finder(site, tmp_path, nsfw=False), "300")
    assert find(make_finder(site, tmp_path), "300") == ("300-3001", "Naughty")


@pytest.mark.parametrize("named", [{"name": "100"}, {"name": "1001", "is_version": True}])
def test_a_file_for_another_family_is_not_downloaded(
    site: CivitaiServer, finder: LoraFinder, named: dict[str, Any]
):
    with pytest.raises(BaselineMismatch, match=r"'(SDXL 1\.0|SD 1\.5)', not for flux_1"):
        find(finder, baseline=FLUX, **named)
    assert site.downloads() == []


def test_a_version_that_is_here_and_does_not_fit_is_told_too(finder: LoraFinder):
    find(finder, "1001", is_version=True)
    with pytest.raises(BaselineMismatch, match=r"'SD 1\.5'"):
        find(finder, "1001", SDXL, is_version=True)


@pytest.mark.parametrize("name", ["../../x", "/etc/passwd", "a\\b", "..", "%2e%2e", "x" * 255])
def test_a_name_like_a_path_is_only_a_name(tmp_path: Path, site: CivitaiServer, name: str):
    finder = make_finder(site, tmp_path / "deep" / "lora")
    with pytest.raises(DownloadRefused, match="finds none"):
        find(finder, name)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["asked.json"]


@pytest.mark.parametrize("name", ["", "-1", "1e9", "9" * 30, "\uff11"])
def test_an_odd_version_id_is_refused(finder: LoraFinder, name: str):
    with pytest.raises(DownloadRefused):
        find(finder, name, is_version=True)


def test_jobs_that_want_one_file_download_it_once(site: CivitaiServer, finder: LoraFinder):
    with ThreadPoolExecutor(12) as pool:
        by_name = [pool.submit(find, finder, name) for name in ("100", "Ink Wash") * 4]
        by_version = [pool.submit(find, finder, "1002", is_version=True) for _ in range(4)]
    assert {found.result() for found in (*by_name, *by_version)} == {("100-1002", "Ink Wash")}
    assert len(site.downloads()) == 1


def test_the_cache_keeps_what_jobs_hold(site: CivitaiServer, tmp_path: Path):
    finder = make_finder(site, tmp_path, most_bytes=2 * len(safetensors()))
    find(finder, "1001", job="one", is_version=True)
    find(finder, "1002", job="two", is_version=True)
    with pytest.raises(DownloadFailed, match="no room"):
        find(finder, "700", job="three")
    finder.release("one")
    assert find(finder, "700", job="three") == ("700-7001", "Ink Wash Deluxe")
    assert not (tmp_path / "100-1001.safetensors").exists()
    assert (tmp_path / "100-1002.safetensors").exists()


def test_a_slow_site_fails_the_job_in_time(site: CivitaiServer, finder: LoraFinder):
    site.models[0].versions[1] = Version(1002, safetensors(100_000))
    site.only_one_step = True
    started = elapsed_seconds()
    with pytest.raises(DownloadFailed, match="too slow"):
        finder.find(Wanted("100", SD1), job_id="j", deadline=started + 0.3)
    assert elapsed_seconds() - started < 30, "the site itself never ends"
    site.models[0].versions[1] = Version(1002)


def test_nonsense_instead_of_json_is_a_failed_download(tmp_path: Path, site: CivitaiServer):
    site.models.append(Model(7, "Odd", []))
    with pytest.raises(DownloadRefused, match="has no version"):
        find(make_finder(site, tmp_path), "7")
    web = Web("a worker", pause_seconds=0)
    with pytest.raises(DownloadFailed, match="not an answer of CivitAI"):
        Civitai(web, (site.url + "/api/download/models/1001?",)).model(1, elapsed_seconds() + 5)


def test_a_site_that_does_not_know_is_followed_by_the_next(site: CivitaiServer):
    with civitai_server() as empty:
        web = Web("a worker", pause_seconds=0)
        civitai = Civitai(web, (empty.url, site.url))
        assert civitai.model(100, elapsed_seconds() + 5).name == "Ink Wash"


def test_a_textual_inversion_is_called_by_its_model_id(site: CivitaiServer, tmp_path: Path):
    finder = make_finder(site, tmp_path, TI)
    assert find(finder, "900") == ("900", "Bad Hands")
    assert find(finder, "bad hands") == ("900", "Bad Hands")
    with pytest.raises(DownloadRefused, match="is a LORA"):
        find(finder, "100")


def test_a_pickled_textual_inversion_comes_from_the_hordes_copies(
    site: CivitaiServer, tmp_path: Path
):
    with pytest.raises(DownloadRefused, match="no safetensors"):
        find(make_finder(site, tmp_path, TI), "901")
    copy = {
        "url": f"{site.url}/api/download/models/9001",
        "sha256": hashlib.sha256(safetensors()).hexdigest(),
    }
    site.pages["/api/v1/embedding/901"] = json.dumps(copy)
    web = Web("a worker", pause_seconds=0)
    finder = LoraFinder(
        TI,
        LoraStore(tmp_path / "new", Quota(lambda: 30 << 20, 0, lambda: 1 << 40)),
        Civitai(web, (site.url,)),
        Downloader(web, pause_seconds=0),
        DownloadMemo(tmp_path / "new" / "asked.json"),
        Hordeling(web, site.url),
    )
    assert find(finder, "901") == ("901", "Easy")


@pytest.mark.parametrize(
    ("words", "fit"),
    [
        (("a, b,", " a,  b "), ("a, b",)),
        (("<lora:ink:0.8>", "<lyco:x:1:2> y"), ("ink", "x y")),
        (("line\nbreak", "bell\x07", "", ","), ("line break",)),
        (("x" * 5000,), ("x" * 1000,)),
    ],
)
def test_triggers_are_fit_for_a_prompt(words: tuple[str, ...], fit: tuple[str, ...]):
    assert triggers(words) == fit


def test_what_the_disk_keeps_away_is_told_to_its_owner_once(
    site: CivitaiServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    adapters = Adapters(
        make_finder(site, tmp_path / "lora", most_bytes=10), make_finder(site, tmp_path / "ti", TI)
    )
    search = Search("a job", SD1, elapsed_seconds() + 10)
    for name in ("100", "300", "nobody's"):
        found = adapters.find([LoraRequest(name)], [], 1, search)
        assert [note.value for note in found.notes] == [MetadataValue.DOWNLOAD_FAILED]
    assert caplog.text.count("raise max_lora_cache_size, or free disk space") == 1
