"""`models` as an owner meets it: real processes, their tables, JSON and exit codes."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hordelib.job.control_weights import Weights
from hordelib.safety import csam
from tests.conftest import PROJECT
from tests.support.civitai_server import safetensors
from tests.support.reference_server import STEP_BYTES, ReferenceServer, old_row, reference_server
from worker.cli.exit_codes import ExitCode
from worker.cli.models_command import fetch_safety
from worker.config.config import load_config, models_place
from worker.errors import ConfigError
from worker.models.inventory import ModelsFolder, take_inventory

CONFIG = """
api_key: some-key-some-key-0000
dreamer_name: tester
horde_url: {url}
model_reference: {url}/reference
models_to_load: [One, Two]
"""


@dataclass
class Owner:
    """A home folder, and the command run in it."""

    home: Path

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        done = subprocess.run(
            [sys.executable, "-P", "-m", "worker", "--home", str(self.home), *arguments],
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
            cwd=self.home,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, done.stdout, done.stderr

    def json(self, *arguments: str, code: int = ExitCode.OK) -> dict[str, Any]:
        found, output, errors = self.run("models", *arguments, "--json")
        assert found == code, errors
        return json.loads(output)

    def states(self) -> dict[str, str]:
        """How far each chosen model is, without the second that a process takes."""
        config = load_config(self.home / "bridgeData.yaml")
        stocks = take_inventory(ModelsFolder.of(config, self.home)).stocks
        return {name: stock.state.value for name, stock in stocks.items()}

    def file(self, name: str) -> Path:
        return self.home / "models" / name


@pytest.fixture
def site() -> Generator[ReferenceServer]:
    with reference_server() as site:
        for name in ("One", "Two", "Three"):
            site.offer_model(name, style="anime" if name == "Three" else "generalist")
        yield site


@pytest.fixture
def owner(tmp_path: Path, site: ReferenceServer) -> Owner:
    (tmp_path / "bridgeData.yaml").write_text(CONFIG.format(url=site.url))
    return Owner(tmp_path)


def test_from_nothing_to_verified_models_and_back(owner: Owner, site: ReferenceServer):
    listed = owner.json("list")["models"]
    assert [(row["name"], row["state"]) for row in listed] == [
        ("One", "missing"),
        ("Two", "missing"),
    ]
    dry = owner.json("add", "--dry-run")
    assert dry["to_come_bytes"] == 2 * len(site.files["/files/One.safetensors"])
    assert not owner.file("compvis").exists()

    added = owner.json("add")
    assert (added["fetched"], added["failed"], added["refused"]) == (["One", "Two"], {}, {})
    assert owner.states() == {"One": "verified", "Two": "verified"}
    again = owner.json("add")
    assert (again["fetched"], again["there"]) == ([], ["One", "Two"])
    assert len(site.answers("/files/One.safetensors")) == 1

    freed = owner.json("remove", "Two")["freed_bytes"]
    assert freed == len(site.files["/files/Two.safetensors"])
    assert owner.states() == {"One": "verified", "Two": "missing"}


def test_the_tables_are_for_people(owner: Owner):
    code, output, _ = owner.run("models", "add", "Three")
    assert (code, "1 to download: 150 kB" in output) == (ExitCode.OK, True)
    code, output, _ = owner.run("models", "list")
    lines = [line.split() for line in output.splitlines()]
    assert lines[0] == ["name", "family", "size", "state", "chosen"]
    assert lines[1][:4] == ["One", "stable", "diffusion", "1"]
    assert lines[1][-2:] == ["missing", "yes"]
    assert lines[3][0] == "Three"
    assert lines[3][-1] == "verified"
    assert lines[4][:4] == ["2", "to", "download:", "300"]


def test_groups_and_other_kinds_of_files_are_added_by_their_names(
    owner: Owner, site: ReferenceServer
):
    content = b"an upscaler"
    site.files["/files/x4.pth"] = content
    row = old_row("RealESRGAN_x4plus", "x4.pth", f"{site.url}/files/x4.pth", _sha256(content))
    site.pages["/reference/esrgan.json"] = {"RealESRGAN_x4plus": row}
    site.pages["/api/v2/stats/img/models"] = {"month": {"Three": 9, "One": 3}}
    assert owner.json("add", "top 1", "upscalers")["fetched"] == ["Three", "RealESRGAN_x4plus"]
    assert owner.file("esrgan/x4.pth").read_bytes() == content
    assert owner.json("add", "all anime models")["there"] == ["Three"]
    top = owner.json("top", "1")["models"]
    assert [(row["rank"], row["name"], row["pictures"], row["state"]) for row in top] == [
        (1, "Three", 9, "verified")
    ]


def test_everything_that_can_be_added_is_listed(owner: Owner):
    names = [row["name"] for row in owner.json("list", "--all")["models"]]
    assert names[:3] == ["One", "Two", "Three"]
    assert "ControlNetHED" in names


def test_a_name_that_means_nothing_is_told_in_one_line(owner: Owner):
    code, output, errors = owner.run("models", "add", "Thre", "all aniem", "top 3", "contrlnets")
    assert (code, output) == (ExitCode.USAGE, "")
    told = [
        "dreamer: 'Thre' is not in the model reference; did you mean 'Three'?",
        "'all aniem' is no group of models; did you mean 'all anime'?",
        "'top 3' can't be counted",
        "'contrlnets' is not in the model reference; did you mean 'controlnets'?",
    ]
    lines = errors.splitlines()
    assert len(lines) == len(told)
    assert all(part in line for part, line in zip(told, lines, strict=True))


@pytest.mark.parametrize(
    ("name", "told"),
    [("Three", "'Three' is not on disk"), ("../One", "'../One' is not in the model reference")],
)
def test_only_what_is_there_can_be_removed(owner: Owner, name: str, told: str):
    code, output, errors = owner.run("models", "remove", name)
    assert (code, output, len(errors.splitlines())) == (ExitCode.USAGE, "", 1)
    assert told in errors


def test_what_does_not_fit_is_refused_with_what_to_remove(owner: Owner, site: ReferenceServer):
    owner.json("add", "Three")
    free_bytes = owner.json("disk")["free_bytes"]
    site.pages["/reference/stable_diffusion.json"]["One"]["size_on_disk_bytes"] = (
        free_bytes + 10**15
    )
    _forget_lists(owner)
    added = owner.json("add", code=ExitCode.DISK)
    assert added["fetched"] == ["Two"]
    assert "One: needs 1000 TB" in added["refused"]["One"]
    assert site.answers("/files/One.safetensors") == []


def test_a_wrong_content_is_told_and_leaves_nothing(owner: Owner, site: ReferenceServer):
    site.files["/files/One.safetensors"] = b"something else"
    code, _, errors = owner.run("models", "add", "One")
    assert code == ExitCode.FAILED
    assert "dreamer: One: One.safetensors: the download isn't the expected file" in errors
    assert owner.states()["One"] == "missing"


def test_a_damaged_file_is_found_by_verify_and_replaced(owner: Owner):
    owner.json("add")
    file = owner.file("compvis/One.safetensors")
    status = file.stat()
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))  # as a bad disk does it
    rows = owner.json("verify", code=ExitCode.FAILED)["files"]
    assert [row["state"] for row in rows] == ["another file", "verified"]
    failed = owner.json("add", code=ExitCode.FAILED)["failed"]
    assert 'models remove "One"' in failed["One"]
    owner.json("remove", "One")
    assert owner.json("add")["fetched"] == ["One"]


def test_a_file_that_nobody_lists_is_verified_by_its_header(owner: Owner):
    owner.file("compvis").mkdir(parents=True)
    owner.file("compvis/mine.safetensors").write_bytes(safetensors()[:-1])
    rows = owner.json("verify", code=ExitCode.FAILED)["files"]
    assert [(Path(row["file"]).name, row["state"]) for row in rows] == [
        ("mine.safetensors", "damaged")
    ]


def test_what_takes_the_disk(owner: Owner, site: ReferenceServer):
    owner.json("add", "One", "Three")
    owner.file("lora").mkdir()
    owner.file("lora/1-1.safetensors").write_bytes(bytes(100))
    disk = owner.json("disk")
    assert disk["folders"]["lora"] == 100
    assert disk["folders"]["compvis"] == 2 * len(site.files["/files/One.safetensors"])
    assert [row["name"] for row in disk["unchosen"]] == ["Three"]
    code, output, _ = owner.run("models", "disk")
    assert code == ExitCode.OK
    assert "not chosen by bridgeData.yaml" in output


def test_a_file_of_the_owners_own_is_not_removed(owner: Owner):
    with (owner.home / "bridgeData.yaml").open("a") as file:
        file.write("custom_models: [{name: Mine, baseline: flux_1, filepath: mine.safetensors}]\n")
    (owner.home / "mine.safetensors").write_bytes(safetensors())
    code, _, errors = owner.run("models", "remove", "Mine")
    assert code == ExitCode.USAGE
    assert "'Mine' is yours (custom_models)" in errors
    assert {row["name"]: row["family"] for row in owner.json("list")["models"]}["Mine"] == "custom"


def test_a_file_that_two_models_share_stays_for_the_other(owner: Owner, site: ReferenceServer):
    one = site.pages["/reference/stable_diffusion.json"]["One"]
    site.pages["/reference/stable_diffusion.json"]["Twin"] = one | {"name": "Twin"}
    owner.json("add", "One")
    code, _, errors = owner.run("models", "remove", "Twin")
    assert code == ExitCode.OK
    assert "One.safetensors stays: it is One's too" in errors
    assert owner.json("remove", "Twin", "One")["freed_bytes"] > 0


@pytest.mark.parametrize("action", ["add One", "add", "list", "list --json"])
def test_without_any_list_the_reason_is_told(tmp_path: Path, action: str):
    url = "http://127.0.0.1:9"
    (tmp_path / "bridgeData.yaml").write_text(CONFIG.format(url=url))
    code, output, errors = Owner(tmp_path).run("models", *action.split())
    assert code == ExitCode.UNREACHABLE
    assert "nothing to download" not in output
    errors += output
    assert "image_generation: 127.0.0.1: connection refused" in errors


def test_an_interrupted_download_is_continued(owner: Owner, site: ReferenceServer):
    site.hold("/files/One.safetensors")
    running = subprocess.Popen(
        [sys.executable, "-P", "-m", "worker", "--home", str(owner.home), "models", "add", "One"],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    part = owner.file("compvis/One.safetensors.part")
    _wait_for_content(part, running)
    running.kill()
    running.wait(10)
    site.held.pop("/files/One.safetensors").set()
    assert owner.states()["One"] == "incomplete"
    assert owner.json("add", "One")["fetched"] == ["One"]
    assert site.answers("/files/One.safetensors") == [200, 206]


def test_fetch_asks_the_same_table_as_models_add_annotators(owner: Owner):
    """Their hosts are not on this machine: the addresses are looked at, not asked."""
    planned = owner.json("add", "annotators", "--dry-run")
    assert planned["refused"] == {}
    assert len(planned["fetched"]) == 8
    listed = [row for row in owner.json("list", "--all")["models"] if row["kind"] == "annotator"]
    assert len(listed) == 19


def test_the_files_of_transparent_pictures_are_added_by_the_family_or_together(owner: Owner):
    """Their host is not on this machine: what would be downloaded is looked at."""
    planned = owner.json("add", "layer_diffuse_sd15", "transparent", "--dry-run")
    assert (planned["to_come_bytes"], planned["refused"]) == (4_136_000_000, {})


def test_what_an_alchemist_needs_is_added_together(owner: Owner):
    """Their hosts are not on this machine: what would be downloaded is looked at."""
    planned = owner.json("add", "alchemist", "--dry-run")
    assert planned["refused"] == {}
    names = set(planned["fetched"])
    assert {"blip_caption", "clip_vit_l_14", "aesthetic_head"} < names
    assert len(names) == 3 + 8, "and the annotators of the first nine control types"
    alone = owner.json("add", "blip_caption", "--dry-run")
    assert alone["to_come_bytes"] == 989_820_849 + 231_508


@pytest.mark.parametrize("written", ["", 'api_key: "your-api-key"\ncache_home: "elsewhere"\n'])
def test_the_checkers_weights_are_fetched_before_there_is_a_configuration(
    tmp_path: Path, site: ReferenceServer, monkeypatch: pytest.MonkeyPatch, written: str
):
    wanted = [Weights(name, f"{site.url}/files/{name}", _sha256(name.encode())) for name in "AB"]
    monkeypatch.setattr(csam, "WEIGHTS", tuple(wanted))
    site.files |= {f"/files/{name}": name.encode() for name in "AB"}
    config_file = tmp_path / "bridgeData.yaml"
    if written:
        config_file.write_text(written)
        (tmp_path / "elsewhere").mkdir()
    folder = ModelsFolder.of(models_place(config_file), tmp_path)
    assert fetch_safety(folder) == ExitCode.OK
    home = tmp_path / "elsewhere" if written else tmp_path
    assert sorted(file.name for file in (home / "models" / "clip_blip").iterdir()) == ["A", "B"]
    assert fetch_safety(folder) == ExitCode.OK
    assert site.answers("/files/A") == [200]
    (folder.path / "clip_blip" / "A").write_bytes(b"damaged")
    assert fetch_safety(folder) == ExitCode.FAILED


def test_a_models_folder_that_can_not_be_one_is_named(tmp_path: Path):
    config_file = tmp_path / "bridgeData.yaml"
    config_file.write_text("cache_home: [3]\n")
    with pytest.raises(ConfigError, match="cache_home"):
        models_place(config_file)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _forget_lists(owner: Owner) -> None:
    """As if an hour had passed."""
    for copy in owner.file("reference").iterdir():
        copy.unlink()


def _wait_for_content(part: Path, running: subprocess.Popen[bytes]) -> None:
    ticks = threading.Event()
    for _ in range(600):
        if part.is_file() and part.stat().st_size >= STEP_BYTES:
            return
        assert running.poll() is None, "it ended before anything came"
        ticks.wait(0.05)
    raise AssertionError("nothing came")
