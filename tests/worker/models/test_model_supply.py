"""Models that arrive: downloaded, verified, remembered; and refused for good, or for a while."""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from itertools import islice
from pathlib import Path

import pytest

from hordelib.errors import DownloadRefused
from hordelib.files.content_hash import content_hash
from tests.support.civitai_server import safetensors
from tests.support.owner import wait_for
from tests.support.reference_server import STEP_BYTES, ReferenceServer, reference_server
from worker.models.files.checksums import VerifiedFiles
from worker.models.files.fetching import FileFetcher
from worker.models.files.on_disk import State, Stock, look
from worker.models.files.supply import ModelSupply, arrived_bytes, progress_text
from worker.models.reference import Kind, read_list
from worker.net.fetch import Web
from worker.net.refusal_memo import DownloadMemo


@pytest.fixture
def site() -> Generator[ReferenceServer]:
    with reference_server() as site:
        for name in ("One", "Two", "Three"):
            site.offer_model(name)
        yield site


def stocks(site: ReferenceServer, folder: Path) -> dict[str, Stock]:
    rows = read_list(json.dumps(site.pages["/reference/stable_diffusion.json"]), Kind.model).entries
    return {row.name: look(folder, row, VerifiedFiles(folder)) for row in rows}


def fetcher(folder: Path, token: str = "") -> FileFetcher:
    web = Web("tester", {"http://127.0.0.1": token}, pause_seconds=0.01)
    return FileFetcher(web, DownloadMemo(folder / "refused.json"), VerifiedFiles(folder))


def supply(wanted: Sequence[Stock], folder: Path, *, keeps_trying: bool = False) -> dict[str, str]:
    """The problem of each model, "" where it came."""
    outcomes = ModelSupply(wanted, fetcher(folder), keeps_trying=keeps_trying).outcomes(0.05)
    return {outcome.stock.name: outcome.problem for outcome in outcomes if outcome}


def test_models_come_whole_and_are_known_to_be_right(site: ReferenceServer, tmp_path: Path):
    wanted = list(stocks(site, tmp_path).values())
    assert supply(wanted, tmp_path) == {"One": "", "Two": "", "Three": ""}
    after = stocks(site, tmp_path)
    assert {stock.state for stock in after.values()} == {State.verified}
    assert supply(list(after.values()), tmp_path) == {"One": "", "Two": "", "Three": ""}
    assert len(site.answers("/files/One.safetensors")) == 1


def test_a_model_is_told_as_soon_as_it_is_there(site: ReferenceServer, tmp_path: Path):
    rest = site.hold("/files/One.safetensors")
    wanted = list(stocks(site, tmp_path).values())
    outcomes = ModelSupply(wanted, fetcher(tmp_path), at_once=2).outcomes(0.05)
    assert [told.stock.name for told in islice(filter(None, outcomes), 2)] == ["Two", "Three"]
    wait_for(lambda: arrived_bytes(wanted[:1]) == STEP_BYTES, every=0.01)
    assert progress_text(wanted[:1]) == "66 kB of 150 kB"
    rest.set()
    assert [outcome.stock.name for outcome in outcomes if outcome] == ["One"]


def test_a_cut_download_goes_on_where_it_broke_off(site: ReferenceServer, tmp_path: Path):
    site.cut_downloads = 1
    assert supply([stocks(site, tmp_path)["One"]], tmp_path) == {"One": ""}
    assert site.answers("/files/One.safetensors") == [200, 206]


def test_an_earlier_runs_beginning_is_used(site: ReferenceServer, tmp_path: Path):
    stock = stocks(site, tmp_path)["One"]
    path = stock.files[0].path
    path.parent.mkdir()
    path.with_name(f"{path.name}.part").write_bytes(
        site.files["/files/One.safetensors"][:STEP_BYTES]
    )
    begun = stocks(site, tmp_path)["One"]
    assert begun.state is State.incomplete
    assert supply([begun], tmp_path) == {"One": ""}
    assert site.answers("/files/One.safetensors") == [206]


def test_another_content_than_the_references_never_becomes_a_model(
    site: ReferenceServer, tmp_path: Path
):
    site.files["/files/One.safetensors"] = b"something else"
    (problem,) = supply([stocks(site, tmp_path)["One"]], tmp_path).values()
    assert problem.startswith("One: One.safetensors: the download isn't the expected file")
    assert list((tmp_path / "compvis").iterdir()) == []


def test_a_file_without_a_sha256_comes_where_its_tensors_are_right(
    site: ReferenceServer, tmp_path: Path
):
    for name in ("One", "Two"):
        content = site.offer_model(name, sha256="FIXME")
        (tmp_path / name).write_bytes(content)
        file = site.pages["/reference/stable_diffusion.json"][name]["config"]["download"][0]
        file["content_hash"] = content_hash(tmp_path / name)
    site.files["/files/Two.safetensors"] = safetensors(150_000, b"x")
    wanted = stocks(site, tmp_path)
    problems = supply([wanted["One"], wanted["Two"]], tmp_path)
    assert problems.pop("One") == ""
    assert "Two.safetensors: its tensors have the content hash " in problems["Two"]
    assert [path.name for path in (tmp_path / "compvis").iterdir()] == ["One.safetensors"]
    assert stocks(site, tmp_path)["One"].state is State.verified


@pytest.mark.parametrize("status", [401, 403, 404, 410, 451])
def test_a_last_word_is_remembered_over_restarts(
    site: ReferenceServer, tmp_path: Path, status: int
):
    site.statuses["/files/One.safetensors"] = status
    for _ in range(2):
        (problem,) = supply([stocks(site, tmp_path)["One"]], tmp_path, keeps_trying=True).values()
        assert f"HTTP {status}" in problem
    assert site.answers("/files/One.safetensors") == [status]
    with pytest.raises(DownloadRefused, match=str(status)):
        fetcher(tmp_path, token="a new token").complete(stocks(site, tmp_path)["One"])
    assert site.answers("/files/One.safetensors") == [status, status]


def test_what_may_pass_is_tried_until_it_passed(site: ReferenceServer, tmp_path: Path):
    site.statuses["/files/One.safetensors"] = 503
    wanted = [stocks(site, tmp_path)["One"]]
    outcomes = ModelSupply(wanted, fetcher(tmp_path), keeps_trying=True, retry_seconds=0.1)
    told = outcomes.outcomes(0.05)
    while len(site.answers("/files/One.safetensors")) < 4:
        assert next(told) is None
    site.statuses.clear()
    assert [outcome.problem for outcome in told if outcome] == [""]


def test_a_site_that_is_away_does_not_keep_others_waiting(site: ReferenceServer, tmp_path: Path):
    site.statuses["/files/One.safetensors"] = 503
    wanted = list(stocks(site, tmp_path).values())
    supply = ModelSupply(wanted, fetcher(tmp_path), keeps_trying=True, at_once=1, retry_seconds=0.3)
    told = supply.outcomes(0.05)
    assert [each.stock.name for each in islice(filter(None, told), 2)] == ["Two", "Three"]
    site.statuses.clear()
    assert [each.stock.name for each in told if each] == ["One"]


def test_without_patience_it_is_told_at_once(site: ReferenceServer, tmp_path: Path):
    site.statuses["/files/One.safetensors"] = 503
    (problem,) = supply([stocks(site, tmp_path)["One"]], tmp_path).values()
    assert problem == "One: 127.0.0.1: HTTP 503"


def test_a_file_of_another_content_is_neither_offered_nor_overwritten(
    site: ReferenceServer, tmp_path: Path
):
    (tmp_path / "compvis").mkdir()
    (tmp_path / "compvis" / "One.safetensors").write_bytes(b"the owner's")
    stock = stocks(site, tmp_path)["One"]
    assert stock.state is State.unread
    (problem,) = supply([stock], tmp_path).values()
    assert "another file than the reference names" in problem
    assert 'models remove "One"' in problem
    assert (tmp_path / "compvis" / "One.safetensors").read_bytes() == b"the owner's"
    assert stocks(site, tmp_path)["One"].state is State.other


def test_a_folder_that_can_not_be_made_is_a_problem_of_that_model(
    site: ReferenceServer, tmp_path: Path
):
    (tmp_path / "compvis").write_text("a file")
    (problem,) = supply([stocks(site, tmp_path)["One"]], tmp_path).values()
    assert problem.startswith("One: ")
    assert "compvis" in problem
