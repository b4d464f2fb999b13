from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from tests.support.owner import wait_for
from tests.support.reference_server import ReferenceServer, reference_server
from worker.config.config import load_config
from worker.errors import ConfigError, UnknownModel
from worker.page.model_shelf import ModelShelf


@pytest.fixture
def site() -> Generator[ReferenceServer]:
    with reference_server() as site:
        for name in ("One", "Two", "Three"):
            site.offer_model(name)
        yield site


@pytest.fixture
def shelf(tmp_path: Path, site: ReferenceServer) -> ModelShelf:
    config_file = tmp_path / "bridgeData.yaml"
    config_file.write_text(
        f"api_key: a-key\ndreamer_name: tester\nhorde_url: {site.url}\n"
        f"model_reference: {site.url}/reference\nmodels_to_load:\n  - One  # mine\n"
    )
    return ModelShelf(config_file, tmp_path)


def is_over(shelf: ModelShelf) -> bool:
    return all(each["is_over"] for each in shelf.fetches())


def test_a_model_is_added_with_the_room_shown_first_and_removed_again(
    shelf: ModelShelf, site: ReferenceServer
):
    plan = shelf.plan("Two")
    assert plan["to_come_bytes"] == len(site.files["/files/Two.safetensors"])
    assert plan["free_bytes"] > plan["to_come_bytes"]
    rest = site.hold("/files/Two.safetensors")
    shelf.add("Two")
    with pytest.raises(UnknownModel, match="already"):
        shelf.add("Two")
    wait_for(lambda: shelf.fetches()[0]["arrived_bytes"] > 0)
    rest.set()
    wait_for(lambda: is_over(shelf))
    assert shelf.fetches()[0]["problem"] == ""
    assert load_config(shelf.config_file).models_to_load == ("One", "Two")
    rows = {row["name"]: row for row in shelf.shown(("One",))["models"]}
    assert (rows["Two"]["state"], rows["Two"]["is_chosen"]) == ("verified", True)
    assert (rows["One"]["is_served"], rows["Three"]["is_chosen"]) == (True, False)

    assert shelf.remove("Two")["freed_bytes"] == plan["to_come_bytes"]
    assert load_config(shelf.config_file).models_to_load == ("One",)
    assert "One  # mine" in shelf.config_file.read_text()
    assert not list((shelf.home / "models").rglob("Two*"))


def test_a_download_that_fails_says_so_and_chooses_nothing(
    shelf: ModelShelf, site: ReferenceServer
):
    site.statuses["/files/Two.safetensors"] = 404
    shelf.add("Two")
    wait_for(lambda: is_over(shelf))
    assert "Two" in shelf.fetches()[0]["problem"]
    assert load_config(shelf.config_file).models_to_load == ("One",)


def test_what_can_t_be_added_or_removed_is_told(shelf: ModelShelf):
    for name in ("Nonsense", "", "../../etc/passwd", "x" * 1000):
        with pytest.raises(UnknownModel, match="not in the horde's list"):
            shelf.plan(name)
    with pytest.raises(UnknownModel, match="chosen already"):
        shelf.add("One")
    with pytest.raises(ConfigError, match="names no model"):
        shelf.remove("One")
    text = shelf.config_file.read_text().replace("One  # mine", "all models")
    shelf.config_file.write_text(text)
    with pytest.raises(UnknownModel, match="chosen by a group"):
        shelf.remove("One")


def test_what_is_larger_than_the_disk_is_not_begun(shelf: ModelShelf, site: ReferenceServer):
    site.offer_model("Vast", size_on_disk_bytes=10**16)
    plan = shelf.plan("Vast")
    assert "there is room for" in plan["problem"]
    with pytest.raises(UnknownModel, match="there is room for"):
        shelf.add("Vast")
