"""The offer keeps up with the models: those that arrive while it serves, and those in demand."""

from __future__ import annotations

import errno
import shutil
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hordelib.job.families import SD1
from tests.support.family_files import completed, write_header
from tests.support.reference_server import ReferenceServer, reference_server
from worker.cli.check import findings
from worker.config.keys import BridgeConfig
from worker.models.inventory import ModelsFolder, take_inventory
from worker.models.keeper import ModelOffering
from worker.models.offered import OfferedModels
from worker.service.assembly import make_intake

QUEUES = "/api/v2/status/models"
USES = "/api/v2/stats/img/models"


@pytest.fixture
def site(tmp_path: Path) -> Generator[ReferenceServer]:
    """Three models whose files are headers of Stable Diffusion 1, each a little different."""
    with reference_server() as site:
        for number, name in enumerate(("One", "Two", "Three"), 1):
            shapes = {
                "input_blocks.0.0.weight": (number, 4, 1, 1),
                "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (100, 768),
            }
            file = write_header(tmp_path / "served.safetensors", completed(SD1, shapes), prefix="")
            site.offer_model(name, file.read_bytes(), nsfw=name == "Three")
        yield site


def config(site: ReferenceServer, home: Path, **more: object) -> BridgeConfig:
    values = {
        "api_key": "a-key",
        "dreamer_name": "tester",
        "cache_home": str(home),
        "horde_url": site.url,
        "model_reference": f"{site.url}/reference",
        "models_to_load": ["One", "Two"],
    }
    return BridgeConfig.model_validate(values | more)


def offering(configured: BridgeConfig, home: Path) -> ModelOffering:
    return ModelOffering(take_inventory(ModelsFolder.of(configured, home)))


@contextmanager
def serving(configured: BridgeConfig, home: Path) -> Generator[tuple[ModelOffering, OfferedModels]]:
    """What a worker has that has begun to serve."""
    keeper = offering(configured, home)
    models = keeper.first_models()
    assert models.served, models.problems
    offered = make_intake(configured, home, models).offered
    with keeper.kept_up(offered):
        yield keeper, offered


def models_of(configured: BridgeConfig, home: Path) -> tuple[str, ...]:
    """What it offers when it begins to serve."""
    with serving(configured, home) as (_, offered):
        return offered.offer().models


def wait_for(condition: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.02)


def test_serving_starts_with_the_first_model_and_goes_on_with_the_others(
    site: ReferenceServer, tmp_path: Path
):
    rest = site.hold("/files/One.safetensors")
    with serving(config(site, tmp_path), tmp_path) as (_, offered):
        assert offered.offer().models == ("Two",)
        rest.set()
        wait_for(lambda: offered.offer().models == ("Two", "One"))
        assert offered.models["One"].family.name == "stable diffusion 1"


def test_what_is_there_and_verified_serves_at_once_and_asks_for_no_file(
    site: ReferenceServer, tmp_path: Path
):
    with serving(config(site, tmp_path), tmp_path) as (_, offered):
        wait_for(lambda: len(offered.offer().models) == 2)
    asked = len(site.asked)
    assert models_of(config(site, tmp_path), tmp_path) == ("One", "Two")
    assert len(site.asked) == asked


def test_a_file_that_nobody_has_read_is_read_before_it_is_offered(
    site: ReferenceServer, tmp_path: Path
):
    folder = tmp_path / "models" / "compvis"
    folder.mkdir(parents=True)
    (folder / "One.safetensors").write_bytes(site.files["/files/One.safetensors"])
    (folder / "two.safetensors").write_bytes(site.files["/files/Three.safetensors"])
    keeper = offering(config(site, tmp_path), tmp_path)
    models = keeper.first_models()
    assert list(models.served) == ["One"]
    assert site.answers("/files/One.safetensors") == []


def test_a_file_of_another_content_is_never_offered(site: ReferenceServer, tmp_path: Path):
    folder = tmp_path / "models" / "compvis"
    folder.mkdir(parents=True)
    (folder / "one.safetensors").write_bytes(site.files["/files/Three.safetensors"])
    for _ in range(2):  # not known, then known
        models = offering(config(site, tmp_path, models_to_load=["One"]), tmp_path).first_models()
        assert models.served == {}
        assert "one.safetensors is damaged, or another file" in models.problems[-1]
    own = {
        "name": "One",
        "baseline": "stable diffusion 1",
        "filepath": "models/compvis/one.safetensors",
    }
    named = config(site, tmp_path, models_to_load=[], custom_models=[own])
    assert list(offering(named, tmp_path).first_models().served) == ["One"]


def test_a_model_that_can_not_be_had_leaves_the_others(site: ReferenceServer, tmp_path: Path):
    site.statuses["/files/One.safetensors"] = 404
    rest = site.hold("/files/Two.safetensors")
    keeper = offering(config(site, tmp_path), tmp_path)
    refused = tmp_path / "models" / "refused.json"
    release = threading.Thread(target=lambda: (wait_for(refused.exists), rest.set()))
    release.start()
    models = keeper.first_models()
    release.join()
    assert list(models.served) == ["Two"]
    assert models.problems == ("One: 127.0.0.1: there is none (HTTP 404)",)


def test_a_file_that_is_as_listed_and_no_model_is_told_and_not_offered(
    site: ReferenceServer, tmp_path: Path
):
    site.offer_model("Nonsense", b"as the reference has it", file="x.safetensors")
    keeper = offering(config(site, tmp_path, models_to_load=["Nonsense"]), tmp_path)
    models = keeper.first_models()
    assert models.served == {}
    assert "x.safetensors: no model file: it begins with" in models.problems[-1]


def test_where_none_can_be_had_each_is_told(site: ReferenceServer, tmp_path: Path):
    site.statuses |= {"/files/One.safetensors": 404, "/files/Two.safetensors": 403}
    models = offering(config(site, tmp_path), tmp_path).first_models()
    assert models.served == {}
    told = "\n".join(models.problems)
    assert "One: 127.0.0.1: there is none (HTTP 404)" in told
    assert "Two: 127.0.0.1: it is forbidden (HTTP 403)" in told


def test_what_does_not_fit_is_not_begun(site: ReferenceServer, tmp_path: Path):
    site.pages["/reference/stable_diffusion.json"]["One"]["size_on_disk_bytes"] = 10**15
    keeper = offering(config(site, tmp_path), tmp_path)
    models = keeper.first_models()
    assert list(models.served) == ["Two"]
    assert any("One: needs 1000 TB" in line for line in models.problems)
    assert site.answers("/files/One.safetensors") == []


def test_groups_choose_by_the_hordes_numbers(site: ReferenceServer, tmp_path: Path):
    site.pages[USES] = {"day": {}, "month": {"Two": 5, "Three": 9, "Unknown": 99}, "total": {}}
    top = config(site, tmp_path, models_to_load=["top 1"])
    assert models_of(top, tmp_path) == ("Three",)
    skipping = config(site, tmp_path, models_to_load=["top 1"], models_to_skip=["all nsfw"])
    assert models_of(skipping, tmp_path) == ("Two",)


def dynamic(site: ReferenceServer, home: Path, **more: object) -> BridgeConfig:
    values = {"dynamic_models": True, "number_of_dynamic_models": 1, "models_to_load": ["One"]}
    return config(site, home, **values | more)


def queue(site: ReferenceServer, home: Path, **queued: float) -> None:
    """What waits for each model, as of a minute later."""
    site.pages[QUEUES] = [{"name": n, "count": 0, "queued": size} for n, size in queued.items()]
    (home / "models" / "reference" / "queues.json").unlink(missing_ok=True)


def test_the_hordes_queues_change_the_offer(site: ReferenceServer, tmp_path: Path):
    queue(site, tmp_path, Two=50)
    with serving(dynamic(site, tmp_path), tmp_path) as (keeper, offered):
        wait_for(lambda: set(offered.offer().models) == {"One", "Two"})

        queue(site, tmp_path, Two=50, Three=99)
        assert keeper.follow(["Two"], offered) == ["Two"]
        queue(site, tmp_path, Two=50, Three=101)
        assert keeper.follow(["Two"], offered) == ["Three"]
        assert set(offered.offer().models) == {"One", "Three"}
        assert "Two" in offered.models  # what was popped is still done

        queue(site, tmp_path, Two=500, Three=101)
        assert keeper.follow(["Three"], offered) == ["Two"]
        assert set(offered.offer().models) == {"One", "Two"}


def test_without_the_hordes_queues_the_offer_stays(site: ReferenceServer, tmp_path: Path):
    queue(site, tmp_path, Two=50)
    with serving(dynamic(site, tmp_path), tmp_path) as (keeper, offered):
        wait_for(lambda: set(offered.offer().models) == {"One", "Two"})
        queue(site, tmp_path)
        site.statuses[QUEUES] = 503
        assert keeper.follow(["Two"], offered) == ["Two"]
        assert set(offered.offer().models) == {"One", "Two"}


def test_a_dynamic_model_that_was_withdrawn_does_not_come_back(
    site: ReferenceServer, tmp_path: Path
):
    queue(site, tmp_path, Two=50)
    with serving(dynamic(site, tmp_path), tmp_path) as (keeper, offered):
        wait_for(lambda: set(offered.offer().models) == {"One", "Two"})
        offered.withdraw("Two", "it is broken")
        assert keeper.follow([], offered) == []
        assert offered.offer().models == ("One",)


def test_queues_that_change_are_followed_while_it_serves(site: ReferenceServer, tmp_path: Path):
    queue(site, tmp_path, Two=50)
    inventory = take_inventory(ModelsFolder.of(dynamic(site, tmp_path), tmp_path))
    assert inventory.names == ("One", "Two")
    keeper = ModelOffering(inventory, dynamic_seconds=0.05)
    offered = make_intake(inventory.folder.config, tmp_path, keeper.first_models()).offered
    with keeper.kept_up(offered):
        queue(site, tmp_path, Three=50)
        wait_for(lambda: set(offered.offer().models) == {"One", "Three"})


def test_queues_are_followed_on_after_a_disk_that_failed_for_a_moment(
    site: ReferenceServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    failures = [OSError(errno.EIO, "Input/output error")]
    measured = shutil.disk_usage

    def failing_once(path: Path) -> object:
        if failures:
            raise failures.pop()
        return measured(path)

    queue(site, tmp_path, Two=50)
    inventory = take_inventory(ModelsFolder.of(dynamic(site, tmp_path), tmp_path))
    keeper = ModelOffering(inventory, dynamic_seconds=0.05)
    offered = make_intake(inventory.folder.config, tmp_path, keeper.first_models()).offered
    monkeypatch.setattr("worker.models.keeper.TROUBLE_SECONDS", 0.05)
    monkeypatch.setattr(shutil, "disk_usage", failing_once)
    with keeper.kept_up(offered):
        wait_for(lambda: "the horde's queues: looking again" in caplog.text)
        queue(site, tmp_path, Three=50)
        wait_for(lambda: set(offered.offer().models) == {"One", "Three"})


def test_with_enough_models_on_disk_the_queues_download_no_more(
    site: ReferenceServer, tmp_path: Path
):
    queue(site, tmp_path, Two=50)
    full = dynamic(site, tmp_path, max_models_to_download=0)
    assert take_inventory(ModelsFolder.of(full, tmp_path)).names == ("One",)


def test_check_tells_what_run_would_do(site: ReferenceServer, tmp_path: Path):
    site.pages["/reference/stable_diffusion.json"]["Two"]["size_on_disk_bytes"] = 10**15
    (tmp_path / "bridgeData.yaml").write_text(
        f"api_key: a-key\ndreamer_name: tester\nhorde_url: {site.url}\n"
        f"model_reference: {site.url}/reference\nmodels_to_load: [One, Two, Thre]\n"
    )
    told = {
        (finding.verdict.value, finding.detail)
        for finding in findings(tmp_path, tmp_path / "bridgeData.yaml")
        if finding.name in ("model files", "downloads")
    }
    assert ("ok", "run downloads or verifies first: One") in told
    failed = [detail for verdict, detail in told if verdict == "FAILED"]
    assert len(failed) == 2
    assert any("Two: needs 1000 TB" in detail for detail in failed)
    assert any("did you mean 'Three'?" in detail for detail in failed)
    assert list((tmp_path / "models").rglob("*.safetensors")) == []
