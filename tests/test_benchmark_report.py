"""Pages of benchmarks, and two runs compared, from files as `--json` writes them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import main

JOB = {"width": 64, "height": 64, "steps": 10, "images": 1, "together": 1, "loras": 0}
PHASES = {"text": 0.1, "sampling": 0.8, "decoding": 0.1}
NASTY = '<script>alert("$x$ 猫 & co")</script>'


def engine_row(seconds: float, phases: dict[str, float] = PHASES, **job: Any) -> dict[str, Any]:
    spread = {"fastest_seconds": 0.9 * seconds, "slowest_seconds": 1.2 * seconds}
    measured = {"seconds": seconds, **spread, "images_per_second": job.get("together", 1) / seconds}
    return {"model": NASTY, "job": {**JOB, **job}, **measured, "phases": phases, "gpu": None}


def file(path: Path, rows: list[dict[str, Any]], **other: Any) -> str:
    document = {
        "schema": 1,
        "bench": "engine",
        "commit": "0123456789ab",
        "dreamer": "0.1.0",
        "started": "2026-11-01T10:00:00+00:00",
        "seconds": 12.5,
        "hardware": {"cpu": NASTY, "cores": 2, "gpu": None},
        "arguments": {"quick": True},
        "results": rows,
    }
    path.write_text(json.dumps({**document, **other}), "utf-8")
    return str(path)


def titles(page: str) -> list[str]:
    return re.findall(r"<h2>(.*?)</h2>", page)


def test_a_page_stands_alone_and_strangers_words_are_no_markup(tmp_path: Path):
    run = file(tmp_path / "a.json", [engine_row(1.0), engine_row(2.0, together=4)])
    assert main(["report", run, "--html", str(tmp_path / "a.html")]) == 0
    page = (tmp_path / "a.html").read_text("utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert not re.search(r"\s(src|href)=\"(?!#)|url\((?!#)|@import", page)
    for told in ("2026-11-01", "0123456789ab", "cores 2", "quick yes", "0.1.0"):
        assert told in page


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (
            [engine_row(1.0), engine_row(2.0, together=4)],
            ["Throughput over the batch", "Seconds of a picture, by phase"],
        ),
        ([engine_row(1.0, {})], []),
        ([{"workload": "w", "percent": {"text": 20.0}}], ["Share of the time, by phase"]),
        ([{"work": "w", "peer": "p", "ratio": 0.9, "lowest_ratio": None}], ["Ratios"]),
        ([{"work": "w", "peer": "p", "ratio": None, "error": "it can't"}], []),
        (
            [{"side": 64, "predicted_bytes": 100, "measured_bytes": 90}],
            ["Memory, measured over predicted"],
        ),
        (
            [{"jobs": jobs, "bridge_cpu_ms": 50.0, "faulted": jobs} for jobs in (10, 100)],
            ["Cost of a job over jobs"],
        ),
        ([{"jobs": 30, "bridge_cpu_ms": 50.0}], []),
    ],
)
def test_a_plot_is_there_when_the_rows_have_its_figures(
    rows: list[dict[str, Any]], expected: list[str], tmp_path: Path
):
    run = file(tmp_path / "a.json", rows)
    assert main(["report", run, "--html", str(tmp_path / "a.html")]) == 0
    page = (tmp_path / "a.html").read_text("utf-8")
    assert titles(page) == ["Results", *expected]
    assert page.count("<svg") == len(expected)


def test_two_runs_are_matched_by_what_was_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    old = file(tmp_path / "a.json", [engine_row(1.0), engine_row(2.0, together=4)])
    rows = [{**engine_row(6.0, loras=1), "repeats": 5}, {**engine_row(0.5), "repeats": 5}]
    new = file(tmp_path / "b.json", rows, hardware={"cpu": "another", "cores": 2})
    assert main(["report", old, new, "--html", str(tmp_path / "c.html")]) == 0
    printed = capsys.readouterr().out
    lines = [line.replace("│", " ").split() for line in printed.splitlines()]
    assert [line[-4:] for line in lines if line[-4:-3] == ["seconds"]] == [
        ["seconds", "1", "0.5", "0.5"]
    ]
    assert "not the same: hardware cpu" in printed
    assert printed.endswith(
        "only in the old run: together 4\nonly in the new run: together 1, loras 1\n"
    )
    page = (tmp_path / "c.html").read_text("utf-8")
    assert "seconds: new to old" in titles(page)
    assert "phases sampling" in page


@pytest.mark.parametrize("output", ["a.json", "b.json", "folder/../a.json", "link.json"])
def test_a_page_never_takes_the_place_of_a_run(
    output: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link.json").symlink_to(tmp_path / "a.json")
    runs = [file(tmp_path / name, [engine_row(1.0)]) for name in ("a.json", "b.json")]
    before = [Path(run).read_text("utf-8") for run in runs]
    assert main(["report", *runs, "--html", str(tmp_path / output)]) == 2
    assert "is the run itself" in capsys.readouterr().err
    assert [Path(run).read_text("utf-8") for run in runs] == before


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "No such file"),
        ("half a {", "no JSON"),
        ("[1, 2]", "no results of a benchmark"),
        ('{"schema": 99}', "has schema 99, and this version reads schema 1"),
        ('{"schema": 1, "bench": "engine"}', "no results of a benchmark"),
    ],
)
def test_what_is_no_run_is_told_in_one_line(
    text: str | None, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "a.json"
    if text is not None:
        path.write_text(text)
    assert main(["report", file(tmp_path / "good.json", [engine_row(1.0)]), str(path)]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith(f"error: {path}: ")
    assert told in errors
    assert errors.count("\n") == 1


def test_runs_of_two_benches_are_not_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    engine = file(tmp_path / "a.json", [engine_row(1.0)])
    memory = file(tmp_path / "b.json", [{"side": 64}], bench="memory")
    assert main(["report", engine, memory]) == 2
    told = "error: a run of engine can't be compared with one of memory\n"
    assert capsys.readouterr().err == told
