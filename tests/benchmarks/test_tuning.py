"""What is proposed for a machine, by what jobs take there, and what becomes of bridgeData.yaml."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.tuning import tuning
from benchmarks.tuning.tune_owner import STAND_IN, Owner
from benchmarks.tuning.tuning import HordeCall, Proposal, Tuning, models_proposal
from hordelib.errors import OutOfMemory
from hordelib.files.model import Model
from worker.config.config import load_config
from worker.config.keys import BridgeConfig
from worker.devices import Card
from worker.service.orders import Orders
from worker.service.overview import Overview
from worker.service.state_folder import StateFolder

GIB = 1 << 30
SHORT_CALL = HordeCall(0.2)


def proposals(
    checkpoint: Path,
    seconds: Callable[[int, int], float],
    card_bytes: int = 80 * GIB,
    call: HordeCall = SHORT_CALL,
) -> dict[str, Proposal]:
    """By key; `seconds` of a job of a side and a number of images."""

    def job_seconds(_: Model, side: int, images: int) -> float:
        return seconds(side, images)

    found = Tuning(owner(checkpoint, card_bytes), job_seconds, call).proposals()
    return {each.key: each for each in found}


def owner(checkpoint: Path, card_bytes: int = 80 * GIB, names: Sequence[str] = ()) -> Owner:
    model = Model.of_checkpoint(checkpoint)
    wanted = {"models_to_load": names or (model.name, "top 2")}
    config = BridgeConfig.model_validate({**STAND_IN, **wanted})
    card = Card("a card", "1", card_bytes, card_bytes)
    return Owner(checkpoint, checkpoint.parent, config, {model.name: model}, (), card)


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


def test_a_picture_that_took_longer_than_two_of_them_is_measured_again(checkpoint: Path):
    """Something else had the machine while it was made alone."""
    alone: list[int] = []

    def seconds(side: int, images: int) -> float:
        if side == 512 and images == 1:
            alone.append(side)
            return 40.0 if len(alone) == 1 else 5.0
        return 5.0 * images

    reason = proposals(checkpoint, seconds)["max_batch"].reason
    assert "one picture of 512 x 512 takes 5 s alone" in reason
    assert len(alone) == 2


def test_jobs_shorter_than_the_network_wait_in_greater_number(checkpoint: Path):
    assert proposals(checkpoint, by_area(10))["queue_size"].proposed == 1
    assert proposals(checkpoint, by_area(0.2), call=HordeCall(0.25))["queue_size"].proposed == 3
    unknown = HordeCall(assumed="https://a.horde could not be asked: timed out")
    reason = proposals(checkpoint, by_area(1), call=unknown)["queue_size"].reason
    assert "0.4 s (assumed: https://a.horde could not be asked: timed out)" in reason


def test_a_size_is_measured_once_and_told_alike_in_every_row(checkpoint: Path):
    asked: list[tuple[int, int]] = []

    def seconds(side: int, images: int) -> float:
        asked.append((side, images))
        return 30 + len(asked) * images  # never twice the same

    found = proposals(checkpoint, seconds)
    assert len(asked) == len(set(asked))
    alone = found["max_power"].measured["512_seconds"]
    assert found["queue_size"].measured["job_seconds"] == alone
    assert found["max_batch"].reason.startswith(f"one picture of 512 x 512 takes {alone:.3g} s")


def test_what_is_known_when_it_is_interrupted_is_kept(checkpoint: Path):
    def seconds(_: Model, side: int, images: int) -> float:
        if side > 512:
            raise KeyboardInterrupt
        return float(images)

    found: list[Proposal] = []
    with pytest.raises(KeyboardInterrupt):
        found.extend(Tuning(owner(checkpoint), seconds, SHORT_CALL).proposals())
    (power,) = found
    assert (power.key, power.proposed) == ("max_power", 8)
    assert "interrupted before larger sizes" in power.reason


def test_a_model_that_can_never_run_is_taken_out(checkpoint: Path):
    fits = models_proposal(owner(checkpoint))
    assert fits.proposed == fits.now
    tight = models_proposal(owner(checkpoint, card_bytes=32 << 20))
    assert tight.proposed == ("top 2",)
    assert "needs" in tight.reason
    assert "models_to_skip" not in tight.reason


def test_of_a_group_nothing_can_be_taken_out_but_by_skipping_it(checkpoint: Path):
    tight = models_proposal(owner(checkpoint, card_bytes=32 << 20, names=["top 2"]))
    assert tight.proposed == tight.now == ("top 2",)
    assert "needs" in tight.reason
    assert "models_to_skip takes it out" in tight.reason


def test_models_that_are_not_here_are_told_and_not_said_to_fit(checkpoint: Path):
    missing = tuple(f"number {n} is not here" for n in range(5))
    reason = models_proposal(replace(owner(checkpoint), missing=missing)).reason
    assert "the model that is here fits" in reason
    assert "number 2 is not here; 2 more" in reason


def write_config(folder: Path, model: str, more: str = "") -> Path:
    """Of a horde that nobody can reach, with models of whatever folder `more` names."""
    path = folder / "bridgeData.yaml"
    path.write_text(
        f"api_key: a-key-of-mine  # mine\ndreamer_name: mine\nmodels_to_load: [{model}]\n"
        f"model_reference: none\nhorde_url: http://127.0.0.1:9\n{more}"
    )
    return path


@pytest.mark.usefixtures("engine")
def test_proposals_are_written_on_request(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr(tuning, "SIDES", (256,))
    monkeypatch.setattr(tuning, "BATCHES", ())
    own = f"max_power: 8\ncache_home: {checkpoint.parent.parent}\n"
    config = write_config(tmp_path, checkpoint.stem, own)
    found = tmp_path / "tune.json"
    arguments = ["tune", "--quick", "--config", str(config), "--json", str(found)]
    assert main([*arguments, "--write"]) == 0
    rows = {row["key"]: row for row in json.loads(found.read_text())["results"]}
    assert set(rows) >= {"max_power", "max_batch", "queue_size", "models_to_load"}
    assert rows["max_power"]["proposed"] == load_config(config).max_power == 2
    assert rows["max_power"]["measured"]["256_seconds"] > 0
    assert "http://127.0.0.1:9 could not be asked" in rows["queue_size"]["reason"]
    assert config.read_text().startswith("api_key: a-key-of-mine  # mine\n")
    assert "max_power: 8" in (tmp_path / "bridgeData.yaml.backup-1").read_text()
    assert "what it was is in bridgeData.yaml.backup-1" in capsys.readouterr().out


@pytest.mark.usefixtures("engine")
def test_figures_of_the_demo_model_are_said_to_be_not_for_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(tuning, "SIDES", (256,))
    monkeypatch.setattr(tuning, "BATCHES", ())
    config = write_config(tmp_path, "Deliberate")
    assert main(["tune", "--quick", "--config", str(config)]) == 0
    told = capsys.readouterr().out
    assert f"of the demo model, not for {config}" in told
    assert "--write" not in told


def test_settings_are_not_written_without_models_of_the_owners(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    config, found = write_config(tmp_path, "Deliberate"), tmp_path / "tune.json"
    assert main(["tune", "--config", str(config), "--json", str(found), "--write"]) == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert "'Deliberate'" in told
    assert "models add NAME, or measure the demo model without --write" in told
    assert list(tmp_path.iterdir()) == [config]


def test_nothing_is_measured_beside_a_worker_unless_it_is_paused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    config = write_config(tmp_path, "Deliberate")
    with closing(StateFolder.open(tmp_path / "state")) as state:
        for doing in ("serving", "pausing"):
            Orders(state.path).answer(Overview(doing=doing))
            assert main(["tune", "--config", str(config)]) == 2
            assert f"a worker runs with {state.path}" in capsys.readouterr().err
        Orders(state.path).answer(Overview(doing="paused"))
        assert main(["tune", "--config", str(config), "--write"]) == 2
        assert "none of your models is here" in capsys.readouterr().err


def test_a_file_that_cant_be_changed_is_told_before_anything_is_measured(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    shared = f"max_power: &two 2\nmax_batch: *two\ncache_home: {checkpoint.parent.parent}\n"
    config, found = write_config(tmp_path, checkpoint.stem, shared), tmp_path / "tune.json"
    assert main(["tune", "--config", str(config), "--json", str(found), "--write"]) == 2
    assert "can't be changed without touching other keys" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [config]


@pytest.mark.parametrize("name", ["tune", "--tune"])
def test_without_a_file_there_is_nothing_to_write_to(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    missing = tmp_path / "bridgeData.yaml"
    assert main([name, "--config", str(missing), "--write"]) == 2
    assert capsys.readouterr().err == (
        f"error: {missing}: no such file; ./horde-bridge.sh setup writes one\n"
    )


def test_a_file_that_cant_be_used_is_told_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    config = tmp_path / "bridgeData.yaml"
    config.write_text("max_powr: 8\n")
    assert main(["tune", "--config", str(config)]) == 2
    assert "did you mean max_power?" in capsys.readouterr().err
