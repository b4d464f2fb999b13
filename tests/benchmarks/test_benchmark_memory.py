"""The benchmark of memory, on the demo model."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.measure import memory, switch
from hordelib import Engine
from hordelib.files.model import Model


@pytest.mark.usefixtures("engine")
def test_each_size_has_a_prediction_and_a_measured_peak(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr(memory, "QUICK", ((64, 1), (128, 4)))
    report = tmp_path / "memory.json"
    assert main(["memory", str(checkpoint), "--quick", "--json", str(report)]) == 0
    small, large = json.loads(report.read_text())["results"]
    assert (small["side"], large["side"], large["images"]) == (64, 128, 4)
    assert 0 < small["measured_bytes"] < large["measured_bytes"]
    assert small["predicted_bytes"] < large["predicted_bytes"]
    printed = capsys.readouterr().out
    assert "predicted MiB" in printed
    rows = [line.replace("│", " ").split() for line in printed.splitlines()]
    assert any(row[i : i + 2] == ["128", "4"] for row in rows for i in range(len(row)))


def test_what_is_predicted_is_enough_for_the_demo_model(checkpoint: Path):
    with Engine() as fresh:  # the other tests' engine has learnt of jobs in memory that was there
        readings = list(memory.measure(fresh, [Model.of_checkpoint(checkpoint)], [(256, 1)]))
    assert all(0 < reading.ratio < 1.25 for reading in readings)


def test_a_switch_is_measured_with_room_for_one_model(
    checkpoint: Path, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO, "hordelib.memory.cache")
    measured = switch.measure(Model.of_checkpoint(checkpoint), rounds=2)
    moved = [m for r in caplog.records if "(unet) off the device" in (m := r.getMessage())]
    assert len(moved) >= 2
    assert measured.unet_bytes > 60 << 20
    assert measured.copy_seconds > 0
    assert measured.other_model_seconds > 0


def test_an_unknown_benchmark_is_told_what_there_is(capsys: pytest.CaptureFixture[str]):
    assert main(["speeed"]) == 2
    assert "memory" in capsys.readouterr().err
