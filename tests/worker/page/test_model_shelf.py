from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from tests.support.family_files import sd1_header
from tests.support.owner import wait_for
from tests.support.reference_server import ReferenceServer, reference_server
from worker.config.config import load_config
from worker.errors import ConfigError, UnknownModel
from worker.models.inventory import ModelsFolder, take_inventory
from worker.models.keeper import ModelOffering
from worker.models.opening import Models
from worker.page.model_shelf import ModelShelf
from worker.service.assembly import make_intake


@pytest.fixture
def site(tmp_path: Path) -> Generator[ReferenceServer]:
    with reference_server() as site:
        for number, name in enumerate(("One", "Two", "Three"), 1):
            site.offer_model(name, sd1_header(tmp_path / "header", number))
        site.offer_model("Nonsense")
        site.offer_model("Vast", size_on_disk_bytes=10**16)
        yield site


@pytest.fixture
def shelf(tmp_path: Path, site: ReferenceServer) -> Generator[ModelShelf]:
    """Of a configuration that chooses the model One, which is still to come."""
    config_file = tmp_path / "bridgeData.yaml"
    config_file.write_text(
        f"api_key: a-key\ndreamer_name: tester\nhorde_url: {site.url}\n"
        f"model_reference: {site.url}/reference\nmodels_to_load:\n  - One  # mine\n"
    )
    config = load_config(config_file)
    offering = ModelOffering(take_inventory(ModelsFolder.of(config, tmp_path)))
    offered = make_intake(config, tmp_path, Models({}, ())).offered
    with offering.kept_up(offered):
        yield ModelShelf(config_file, tmp_path, offering)


def fetch(shelf: ModelShelf, name: str) -> dict[str, Any]:
    """What is shown of its download."""
    (found,) = [each for each in shelf.fetches() if each["name"] == name]
    return found


def wait_until(shelf: ModelShelf, name: str, progress: str) -> None:
    wait_for(lambda: fetch(shelf, name)["progress"] == progress)


def parts(shelf: ModelShelf) -> list[str]:
    return sorted(path.name for path in (shelf.home / "models").rglob("*.part"))


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
    wait_for(lambda: fetch(shelf, "Two")["arrived_bytes"] > 0)
    rest.set()
    wait_until(shelf, "Two", "over")
    wait_for(lambda: load_config(shelf.config_file).models_to_load == ("One", "Two"))
    rows = {row["name"]: row for row in shelf.shown(("One",))["models"]}
    assert (rows["Two"]["state"], rows["Two"]["is_chosen"]) == ("verified", True)
    assert (rows["One"]["is_served"], rows["Three"]["is_chosen"]) == (True, False)

    with pytest.raises(UnknownModel, match="has a job in hand"):
        shelf.remove("Two", in_hand=["Two"])
    assert shelf.remove("Two")["freed_bytes"] == plan["to_come_bytes"]
    assert load_config(shelf.config_file).models_to_load == ("One",)
    assert "One  # mine" in shelf.config_file.read_text()
    assert not list((shelf.home / "models").rglob("Two*"))


def test_a_download_is_paused_goes_on_where_it_was_and_is_cancelled(
    shelf: ModelShelf, site: ReferenceServer
):
    for name in ("Two", "Three"):
        site.hold(f"/files/{name}.safetensors")
        shelf.add(name)
        wait_for(lambda name=name: fetch(shelf, name)["arrived_bytes"] > 0)
        shelf.pause(name)
        assert not fetch(shelf, name)["is_wanted"]
        site.held[f"/files/{name}.safetensors"].set()
        wait_until(shelf, name, "paused")
    assert parts(shelf) == ["Three.safetensors.part", "Two.safetensors.part"]
    shelf.cancel("Three")
    assert fetch(shelf, "Three")["progress"] == "cancelled"
    assert parts(shelf) == ["Two.safetensors.part"]
    shelf.resume("Two")
    wait_until(shelf, "Two", "over")
    assert site.answers("/files/Two.safetensors") == [200, 206]
    wait_for(lambda: "Two" in load_config(shelf.config_file).models_to_load)
    for change in (shelf.pause, shelf.resume, shelf.cancel):
        with pytest.raises(UnknownModel, match="is not being downloaded"):
            change("Two")
    shelf.add("Three")
    wait_until(shelf, "Three", "over")


def test_cancelling_a_chosen_model_chooses_it_no_more(shelf: ModelShelf, site: ReferenceServer):
    rest = site.hold("/files/Two.safetensors")
    text = shelf.config_file.read_text()
    shelf.config_file.write_text(f"{text}  - Two  # the largest\n")
    folder = ModelsFolder.of(load_config(shelf.config_file), shelf.home)
    shelf.offering.supply.add(take_inventory(folder).stocks["Two"])
    wait_for(lambda: fetch(shelf, "Two")["arrived_bytes"] > 0)
    shelf.cancel("Two")
    rest.set()
    wait_until(shelf, "Two", "cancelled")
    wait_for(lambda: not parts(shelf))
    assert load_config(shelf.config_file).models_to_load == ("One",)


def test_cancelling_the_only_model_says_that_it_begins_again(
    shelf: ModelShelf, site: ReferenceServer
):
    site.hold("/files/Two.safetensors")
    shelf.add("Two")
    text = shelf.config_file.read_text()
    shelf.config_file.write_text(text.replace("One", "Two"))
    with pytest.raises(UnknownModel, match="begins again at the next start"):
        shelf.cancel("Two")
    assert load_config(shelf.config_file).models_to_load == ("Two",)


def test_what_fails_or_is_of_no_use_says_so_and_is_not_chosen(
    shelf: ModelShelf, site: ReferenceServer
):
    site.statuses["/files/Two.safetensors"] = 404
    shelf.add("Two")
    shelf.add("Nonsense")
    for name, told in (("Two", "HTTP 404"), ("Nonsense", "is of no model family")):
        wait_for(lambda name=name, told=told: told in fetch(shelf, name)["problem"])
    assert load_config(shelf.config_file).models_to_load == ("One",)


def test_what_can_t_be_added_or_removed_is_told(shelf: ModelShelf):
    for name in ("Something", "", "../../etc/passwd", "x" * 1000):
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


def test_what_is_larger_than_the_disk_is_not_begun(shelf: ModelShelf):
    plan = shelf.plan("Vast")
    assert "there is room for" in plan["problem"]
    with pytest.raises(UnknownModel, match="there is room for"):
        shelf.add("Vast")
