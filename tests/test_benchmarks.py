"""The frame of the benchmarks and the bench of the engine, on the demo model."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import engine as engine_bench
from benchmarks import worker as worker_bench
from benchmarks.__main__ import main
from benchmarks.frame import MEASURED
from benchmarks.machine import PROJECT
from benchmarks.workloads import Kind, Workload
from hordelib import Engine
from hordelib.model import Model


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


def test_what_was_run_before_an_interrupt_has_its_rows(engine: Engine, checkpoint: Path):
    small = engine_bench.Job(width=64, height=64, steps=1)
    kinds = small, replace(small, images=2)
    rows = engine_bench.measure(engine, Model.of_checkpoint(checkpoint), kinds, repeats=2)
    assert [next(rows) for _ in range(3)] == [MEASURED] * 3  # each once to warm up, and one run
    row = rows.throw(KeyboardInterrupt)
    assert isinstance(row, engine_bench.Row)
    assert (row.job, row.repeats) == (small, 1)
    with pytest.raises(KeyboardInterrupt):
        next(rows)


@pytest.mark.usefixtures("checkpoint")
def test_a_workers_time_is_divided_among_phases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    small = {"width": 64, "height": 64, "steps": 2, "n": 2}
    workload = Workload("two models", models=2, kinds=(Kind(small),))
    monkeypatch.setattr(worker_bench, "WORKLOADS", (workload,))
    monkeypatch.setattr(worker_bench, "WARM_UP", 2)
    found = tmp_path / "worker.json"
    arguments = ["worker", "--quick", "--jobs", "3", "--latency", "0", "--json", str(found)]
    assert main(arguments) == 0
    (row,) = json.loads(found.read_text())["results"]
    assert (row["jobs"], row["images"]) == (3, 6)
    assert sum(row["percent"].values()) == pytest.approx(100)
    assert 0 < row["busy_percent"] <= 100
    assert row["p50_seconds"] <= row["p99_seconds"]


def test_a_folder_that_does_not_exist_is_named_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    missing = tmp_path / "nowhere"
    assert main(["engine", "--json", str(missing / "a.json")]) == 2
    assert capsys.readouterr().err == f"error: the folder {missing} does not exist\n"


@pytest.mark.parametrize("value", ["0", "-1", "many"])
def test_a_number_that_makes_no_sense_is_named(value: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main(["engine", "--repeats", value])
    assert ended.value.code == 2
    assert f"argument --repeats: '{value}' is no whole number above 0" in capsys.readouterr().err


ENDLESS = """
import sys, time
from benchmarks.frame import Bench, run
from dataclasses import dataclass
@dataclass(frozen=True)
class Row:
    number: int
def rows(options):
    for number in range(1000):
        yield Row(number)
        print("row", number, flush=True)
        time.sleep(0.2)
sys.exit(run(Bench("endless", "", lambda parser: None, rows, lambda options: 1000), sys.argv[1:]))
"""


def test_ctrl_c_keeps_the_rows_that_are_done(tmp_path: Path):
    found = tmp_path / "endless.json"
    command = [sys.executable, "-c", ENDLESS, "--json", str(found)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=PROJECT) as bench:
        assert bench.stdout is not None
        while bench.stdout.readline() != "row 2\n":
            assert bench.poll() is None
        bench.send_signal(signal.SIGINT)
        bench.communicate(timeout=30)
    assert bench.returncode == 130
    rows = json.loads(found.read_text())["results"]
    assert [row["number"] for row in rows[:3]] == [0, 1, 2]


@pytest.mark.parametrize("bench", ["engine", "memory", "switch", "seconds"])
def test_a_model_that_is_not_there_is_named(
    bench: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main([bench, str(tmp_path / "none.safetensors")]) == 2
    assert "error: none.safetensors: no such file" in capsys.readouterr().err
