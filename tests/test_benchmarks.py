"""The frame of the benchmarks and the bench of the engine, on the demo model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import engine as engine_bench
from benchmarks import worker as worker_bench
from benchmarks.__main__ import main


@pytest.mark.usefixtures("engine")
def test_each_kind_of_job_has_a_row_with_its_features(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    small = engine_bench.Job(width=64, height=64, steps=2)
    batch = engine_bench.Job(width=64, height=64, steps=2, images=2)
    monkeypatch.setattr(engine_bench, "QUICK", (small, batch))
    found = tmp_path / "engine.json"
    arguments = ["engine", str(checkpoint), "--quick", "--repeats", "1", "--json", str(found)]
    assert main([*arguments, "--html", str(tmp_path / "engine.html")]) == 0
    document = json.loads(found.read_text())
    one, two = document["results"]
    assert document["schema"] == 1
    assert (one["job"]["images"], two["job"]["images"]) == (1, 2)
    assert one["marginal_seconds"] is None
    assert two["marginal_seconds"] == pytest.approx(two["seconds"] - one["seconds"])
    assert 0.5 < sum(one["phases"].values()) / one["seconds"] <= 1  # the rest is around the graph
    assert "images per second" in (tmp_path / "engine.html").read_text()


@pytest.mark.usefixtures("checkpoint")
def test_a_workers_time_is_divided_among_phases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    small = {"width": 64, "height": 64, "steps": 2}
    workload = worker_bench.Workload("two models", models=2, params=(small,))
    monkeypatch.setattr(worker_bench, "WORKLOADS", (workload,))
    monkeypatch.setattr(worker_bench, "WARM_UP", 2)
    found = tmp_path / "worker.json"
    arguments = ["worker", "--quick", "--jobs", "3", "--latency", "20", "--json", str(found)]
    assert main(arguments) == 0
    (row,) = json.loads(found.read_text())["results"]
    assert sum(row["percent"].values()) == pytest.approx(100)
    assert 0 < row["busy_percent"] <= 100
    assert row["p50_seconds"] <= row["p99_seconds"]


def test_a_folder_that_does_not_exist_is_named_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    missing = tmp_path / "nowhere"
    assert main(["engine", "--json", str(missing / "a.json")]) == 2
    assert capsys.readouterr().err == f"error: the folder {missing} does not exist\n"
