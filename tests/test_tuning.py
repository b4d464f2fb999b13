"""What is proposed for a machine, by what jobs take there, and what becomes of bridgeData.yaml."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import tuning
from benchmarks.__main__ import main
from benchmarks.tune_owner import STAND_IN, Owner
from benchmarks.tuning import Proposal, Tuning
from hordelib.errors import OutOfMemory
from hordelib.model import Model
from worker.config import BridgeConfig, load_config
from worker.devices import Card

GIB = 1 << 30


def proposals(
    checkpoint: Path,
    seconds: Callable[[int, int], float],
    card_bytes: int = 80 * GIB,
    call_seconds: float | None = 0.2,
) -> dict[str, Proposal]:
    """By key; `seconds` of a job of a side and a number of images."""
    model = Model.of_checkpoint(checkpoint)
    config = BridgeConfig.model_validate({**STAND_IN, "models_to_load": (model.name, "top 2")})
    card = Card("a card", "1", card_bytes, card_bytes)
    owner = Owner(checkpoint, config, {model.name: model}, True, card)

    def job_seconds(_: Model, side: int, images: int) -> float:
        return seconds(side, images)

    found = Tuning(owner, job_seconds, call_seconds).proposals()
    return {each.key: each for each in found}


def by_area(each: float, batch_gain: float = 0.0) -> Callable[[int, int], float]:
    """`each` second for a picture of 512 x 512, and a share of it less in every batch."""
    return lambda side, n: each * n * (side / 512) ** 2 * (1 - batch_gain * (n > 1))


def test_the_largest_size_is_done_in_half_of_the_hordes_time(checkpoint: Path):
    found = proposals(checkpoint, lambda side, n: 9 * n * (side / 512) ** 4)
    assert found["max_power"].proposed == 18  # 768: 46 of 165 s; 1024: 144 of 270 s
    assert "1024 x 1024 with 30 steps takes 144 s" in found["max_power"].reason


def test_a_machine_too_slow_for_anything_gets_the_smallest_and_lets_nothing_wait(checkpoint: Path):
    found = proposals(checkpoint, lambda _side, n: 100.0 * n)
    assert (found["max_power"].proposed, found["max_batch"].proposed) == (2, 1)
    assert found["queue_size"].proposed == 0
    assert "refuse slow workers" in found["max_power"].reason


def test_memory_bounds_the_size(checkpoint: Path):
    found = proposals(checkpoint, by_area(0.5), card_bytes=2 * GIB)
    room = found["max_power"].proposed
    assert isinstance(room, int)
    assert room < 128
    assert "memory has no room" in found["max_power"].reason


def test_running_out_of_memory_bounds_size_and_batch(checkpoint: Path):
    def seconds(side: int, images: int) -> float:
        if side > 768 or images > 4:
            raise OutOfMemory("out of memory")
        return 1.0 + 0.5 * images

    found = proposals(checkpoint, seconds)
    assert (found["max_power"].proposed, found["max_batch"].proposed) == (18, 4)


def test_a_batch_grows_while_a_picture_takes_less(checkpoint: Path):
    assert proposals(checkpoint, by_area(1))["max_batch"].proposed == 1
    assert proposals(checkpoint, by_area(1, 0.2))["max_batch"].proposed == 2
    assert proposals(checkpoint, lambda _, n: 5 + 0.1 * n)["max_batch"].proposed == 16


def test_jobs_shorter_than_the_network_wait_in_greater_number(checkpoint: Path):
    assert proposals(checkpoint, by_area(10))["queue_size"].proposed == 1
    assert proposals(checkpoint, by_area(0.2), call_seconds=0.25)["queue_size"].proposed == 3
    assert "assumed" in proposals(checkpoint, by_area(1), call_seconds=None)["queue_size"].reason


def test_a_model_that_can_never_run_is_taken_out(checkpoint: Path):
    fits = proposals(checkpoint, by_area(1))["models_to_load"]
    assert fits.proposed == fits.now
    tight = proposals(checkpoint, by_area(1), card_bytes=32 << 20)["models_to_load"]
    assert tight.proposed == ("top 2",)
    assert "needs" in tight.reason


@pytest.mark.usefixtures("engine")
def test_proposals_are_written_on_request(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr(tuning, "SIDES", (256,))
    monkeypatch.setattr(tuning, "BATCHES", ())
    folder = checkpoint.parent.parent
    config = tmp_path / "bridgeData.yaml"
    config.write_text(
        f"api_key: a-key-of-mine  # mine\ndreamer_name: mine\nmodels_to_load: [{checkpoint.stem}]\n"
        f"max_power: 8\ncache_home: {folder}\nhorde_url: http://127.0.0.1:9\n"
    )
    found = tmp_path / "tune.json"
    arguments = ["tune", "--quick", "--config", str(config), "--json", str(found)]
    assert main([*arguments, "--write"]) == 0
    rows = {row["key"]: row for row in json.loads(found.read_text())["results"]}
    assert set(rows) >= {"max_power", "max_batch", "queue_size", "models_to_load"}
    assert rows["max_power"]["proposed"] == load_config(config).max_power == 2
    assert rows["max_power"]["measured"]["256_seconds"] > 0
    assert config.read_text().startswith("api_key: a-key-of-mine  # mine\n")
    assert "max_power: 8" in (tmp_path / "bridgeData.yaml.backup-1").read_text()
    assert "what it was is in bridgeData.yaml.backup-1" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["tune", "--tune"])
def test_without_a_file_there_is_nothing_to_write_to(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    missing = tmp_path / "bridgeData.yaml"
    assert main([name, "--config", str(missing), "--write"]) == 2
    assert capsys.readouterr().err == (
        f"error: {missing}: no such file; ./horde-bridge.sh run writes one to fill in\n"
    )


def test_a_file_that_cant_be_used_is_told_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    config = tmp_path / "bridgeData.yaml"
    config.write_text("max_powr: 8\n")
    assert main(["tune", "--config", str(config)]) == 2
    assert "did you mean max_power?" in capsys.readouterr().err
