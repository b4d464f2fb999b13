"""The benchmark of memory, on the demo model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import memory
from benchmarks.__main__ import main
from hordelib import Engine


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


def test_what_is_predicted_is_enough_for_the_demo_model(engine: Engine, checkpoint: Path):
    from hordelib.model import Model

    readings = list(memory.measure(engine, [Model.of_checkpoint(checkpoint)], [(256, 1)]))
    assert all(0 < reading.ratio < 1.25 for reading in readings)


def test_an_unknown_benchmark_is_told_what_there_is(capsys: pytest.CaptureFixture[str]):
    assert main(["speeed"]) == 2
    assert "memory" in capsys.readouterr().err
