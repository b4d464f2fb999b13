"""The frame of the benchmarks and the bench of the engine, on the demo model."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.measure import engine as engine_bench
from benchmarks.measure import engine_forms
from benchmarks.measure import worker as worker_bench
from benchmarks.measure.engine_jobs import Files, Job, kinds_of_job, left_out
from benchmarks.measure.gpu import GpuReading, summary
from benchmarks.measure.machine import PROJECT
from benchmarks.measure.workloads import Kind, Workload
from benchmarks.results import terminal_table
from benchmarks.results.figures import in_units
from benchmarks.results.frame import MEASURED, Bench, run
from hordelib import Engine
from hordelib.files.model import Model
from hordelib.job.families import FAMILIES
from tests.support.tiny_readers import put_blip
from worker.errors import EngineUnusable


def _always(*jobs: Job) -> Callable[[object, object], tuple[Job, ...]]:
    return lambda _options, _model: jobs


@pytest.mark.usefixtures("engine")
def test_each_kind_of_job_has_a_row_with_its_features(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    small = Job(width=64, height=64, steps=2)
    batch = Job(width=64, height=64, steps=2, images=2)
    monkeypatch.setattr(engine_bench, "kinds_of_job", _always(small, batch))
    monkeypatch.setattr(engine_forms, "MODELS", tmp_path / "models")
    put_blip(tmp_path / "models")
    found = tmp_path / "engine.json"
    arguments = ["engine", str(checkpoint), "--quick", "--repeats", "1", "--json", str(found)]
    assert main([*arguments, "--html", str(tmp_path / "engine.html")]) == 0
    document = json.loads(found.read_text())
    one, two, *forms = document["results"]
    assert document["schema"] == 1
    assert (one["job"]["images"], two["job"]["images"]) == (1, 2)
    assert one["marginal_seconds"] is None
    assert two["marginal_seconds"] == pytest.approx(two["seconds"] - one["seconds"])
    assert 0.5 < sum(one["phases"].values()) / one["seconds"] <= 1  # the rest is around the graph
    measured = {row["job"]["form"]: row["seconds"] for row in forms}
    assert {"describe", "palette", "vectorize", "annotation", "caption"} <= measured.keys()
    assert min(measured.values()) > 0
    assert "images per second" in (tmp_path / "engine.html").read_text()


def test_what_was_run_before_an_interrupt_has_its_rows(engine: Engine, checkpoint: Path):
    small = Job(width=64, height=64, steps=1)
    kinds = small, replace(small, images=2)
    model = Model.of_checkpoint(checkpoint)
    files = Files.of(model, None)
    rows = engine_bench.measure(engine, model, kinds, files, repeats=2)
    assert [next(rows) for _ in range(3)] == [MEASURED] * 3  # each once to warm up, and one run
    row = rows.throw(KeyboardInterrupt)
    assert isinstance(row, engine_bench.Row)
    assert (row.job, row.repeats) == (small, 1)
    row = next(rows)
    assert isinstance(row, engine_bench.Row)
    assert (row.job.images, row.repeats) == (2, 0)
    with pytest.raises(KeyboardInterrupt):
        next(rows)


@pytest.mark.parametrize("content", [None, b"no LoRA"])
def test_a_kind_of_job_that_fails_has_a_row_that_says_so_and_the_others_are_measured(
    content: bytes | None, engine: Engine, checkpoint: Path, tmp_path: Path
):
    lora = tmp_path / "my LoRA.safetensors"
    if content is not None:
        lora.write_bytes(content)
    small = Job(width=64, height=64, steps=1)
    kinds = replace(small, loras=1), small
    model = Model.of_checkpoint(checkpoint)
    rows = engine_bench.measure(engine, model, kinds, Files(lora, controls=()), repeats=1)
    failed, measured = (row for row in rows if row is not MEASURED)
    assert isinstance(failed, engine_bench.Failure)
    assert failed.job == kinds[0]
    assert lora.name in failed.error
    assert isinstance(measured, engine_bench.Row)


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    engine_bench.BENCH.add_arguments(parser)
    return parser.parse_args(arguments)


def test_an_owners_model_is_measured_as_it_is_used_and_what_is_left_out_is_told(checkpoint: Path):
    model = replace(
        Model.of_checkpoint(checkpoint),
        name="own",
        family=FAMILIES["stable_diffusion_xl"],
        files={"checkpoint": checkpoint.with_name("own.safetensors")},
    )
    options = _options(["--quick"])
    kinds = kinds_of_job(options, model)
    assert {(kind.width, kind.steps) for kind in kinds} == {(512, 20), (1024, 20)}
    assert not any(kind.loras or kind.control for kind in kinds)
    assert list(left_out(options, model)) == [
        "own: no LoRA is measured: name one of its family with --lora FILE"
    ]
    wanted = _options(["--size", "832x1216", "--steps", "30", "--lora", "a.safetensors"])
    full = kinds_of_job(wanted, model)
    assert Job(832, 1216, 30) in full
    assert any(kind.loras for kind in full)


@pytest.mark.parametrize("more", [["--quick"], []])
def test_no_kind_of_job_is_measured_twice(more: list[str], checkpoint: Path):
    """Half of the smallest size is that size."""
    kinds = kinds_of_job(_options([*more, "--size", "64"]), Model.of_checkpoint(checkpoint))
    assert len(set(kinds)) == len(kinds)


@pytest.mark.parametrize("size", ["1000", "64x", "64x64x64", "big", "0"])
def test_a_size_that_is_none_is_named(size: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main(["engine", "--size", size])
    assert ended.value.code == 2
    assert f"'{size}' is no size: 1024 or 832x1216, in multiples of 64" in capsys.readouterr().err


def test_a_card_is_read_while_a_job_runs():
    looks = [GpuReading(1000.0 + i, None, 60.0, 100.0 * i, 1e9 * i) for i in range(3)]
    assert summary(looks) == GpuReading(1001.0, None, 60.0, 100.0, 2e9)
    assert summary([]) is None


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


@dataclass(frozen=True)
class Number:
    number: int


def broken(error: Exception) -> Bench:
    """One that has a row, and then no more."""

    def rows(_: argparse.Namespace) -> Iterator[Number]:
        yield Number(7)
        raise error

    return Bench("broken", "", lambda _: None, rows, lambda _: 2)


def test_a_worker_that_fails_leaves_the_rows_that_are_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    found = tmp_path / "a.json"
    assert run(broken(EngineUnusable("no engine")), ["--json", str(found)]) == 1
    assert json.loads(found.read_text())["results"] == [{"number": 7}]
    assert "error: no engine (after 1 rows)" in capsys.readouterr().err


def test_a_bug_leaves_the_rows_that_are_done(tmp_path: Path):
    found = tmp_path / "a.json"
    with pytest.raises(ZeroDivisionError):
        run(broken(ZeroDivisionError()), ["--json", str(found)])
    assert json.loads(found.read_text())["results"] == [{"number": 7}]


def test_json_and_page_in_one_file_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    found = tmp_path / "a.json"
    assert main(["engine", "--json", str(found), "--html", str(tmp_path / "." / "a.json")]) == 2
    assert capsys.readouterr().err == f"error: --json and --html name the same file: {found}\n"


def test_what_a_link_leads_to_is_written_and_a_pipe_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    link, file, pipe = tmp_path / "link.json", tmp_path / "file.json", tmp_path / "pipe"
    link.symlink_to(file)
    assert run(broken(EngineUnusable("no engine")), ["--json", str(link)]) == 1
    assert link.is_symlink()
    assert json.loads(file.read_text())["results"]
    os.mkfifo(pipe)
    assert main(["engine", "--json", str(pipe)]) == 2
    assert f"error: {pipe} is no file that could be replaced" in capsys.readouterr().err
    assert pipe.is_fifo()


@pytest.mark.parametrize("width", [60, 90, 200])
def test_no_figure_is_cut_however_narrow_the_terminal(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(terminal_table, "WIDE", width)
    rows = [
        {f"job.figure_{place}_seconds": 1.234 + place + row for place in range(9)} | {"steps": 10}
        for row in range(2)
    ]
    terminal_table.show(rows)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "all: steps 10"
    assert max(map(len, lines)) <= width
    shown = " ".join(lines)
    assert all(in_units("", value) in shown for row in rows for value in row.values())


ENDLESS = """
import sys, time
from benchmarks.results.frame import Bench, run
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
        bench.communicate(timeout=120)
    assert bench.returncode == 130
    rows = json.loads(found.read_text())["results"]
    assert [row["number"] for row in rows[:3]] == [0, 1, 2]


@pytest.mark.parametrize("bench", ["engine", "memory", "switch", "seconds"])
def test_a_model_that_is_not_there_is_named(
    bench: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main([bench, str(tmp_path / "none.safetensors")]) == 2
    assert "error: none.safetensors: no such file" in capsys.readouterr().err


def test_a_file_that_is_no_model_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    notes = tmp_path / "notes.md"
    notes.write_text("not a model")
    assert main(["engine", str(notes)]) == 2
    assert f"error: {notes} is no model: their names end in .safetensors" in capsys.readouterr().err
