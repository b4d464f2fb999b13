"""Pages of benchmarks, and two runs compared, from files as `--json` writes them."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import BENCHES, main
from benchmarks.measure import (
    engine,
    forms,
    judge,
    memory,
    pages,
    scale,
    seconds,
    switch,
    worker,
)
from benchmarks.peers import compare
from benchmarks.results.comparison import CHARTS
from benchmarks.results.run_file import FEATURES
from benchmarks.tuning import tuning

JOB = {"width": 64, "height": 64, "steps": 10, "images": 1, "together": 1, "loras": 0}
PHASES = {"text": 0.1, "sampling": 0.8, "decoding": 0.1}
NASTY = '<script>alert("$x$ 猫 & co")</script>'


def engine_row(seconds: float, phases: dict[str, float] = PHASES, **job: Any) -> dict[str, Any]:
    spread = {"fastest_seconds": 0.9 * seconds, "slowest_seconds": 1.2 * seconds}
    measured = {"seconds": seconds, **spread, "images_per_second": job.get("together", 1) / seconds}
    return {"model": NASTY, "job": {**JOB, **job}, **measured, "phases": phases, "gpu": None}


def file(path: Path, rows: list[dict[str, Any]], bench: str = "engine", **other: Any) -> str:
    document = {
        "schema": 1,
        "bench": bench,
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
    ("bench", "rows", "expected"),
    [
        (
            "engine",
            [engine_row(1.0), engine_row(2.0, together=4)],
            ["Throughput over the batch", "Seconds of a picture, by phase"],
        ),
        ("engine", [engine_row(1.0, {})], []),
        (
            "worker",
            [{"workload": "w", "percent": {"text": 20.0}}],
            ["Share of the time, by phase"],
        ),
        ("compare", [{"work": "w", "peer": "p", "ratio": 0.9, "lowest_ratio": None}], ["Ratios"]),
        ("compare", [{"work": "w", "peer": "p", "ratio": None, "error": "it can't"}], []),
        (
            "memory",
            [{"side": 64, "predicted_bytes": 100, "measured_bytes": 90}],
            ["Memory, measured over predicted"],
        ),
        (
            "scale",
            [{"jobs": jobs, "bridge_cpu_ms": 50.0, "faulted": jobs} for jobs in (10, 100)],
            ["Cost of a job over jobs"],
        ),
        ("scale", [{"jobs": 30, "bridge_cpu_ms": 50.0}], []),
    ],
)
def test_a_plot_is_there_when_the_rows_have_its_figures(
    bench: str, rows: list[dict[str, Any]], expected: list[str], tmp_path: Path
):
    run = file(tmp_path / "a.json", rows, bench)
    assert main(["report", run, "--html", str(tmp_path / "a.html")]) == 0
    page = (tmp_path / "a.html").read_text("utf-8")
    assert titles(page) == ["Results", *expected]
    assert page.count("<svg") == len(expected)


@pytest.mark.parametrize(
    ("bench", "row"),
    [
        ("engine", engine.Row),
        ("worker", worker.Row),
        ("compare", compare.Row),
        ("scale", scale.Row),
        ("memory", memory.Reading),
        ("switch", switch.Switch),
        ("judge", judge.Row),
        ("pages", pages.Row),
        ("forms", forms.Row),
        ("seconds", seconds.Row),
        ("tune", tuning.Proposal),
    ],
)
def test_a_benchs_features_are_figures_of_its_rows(bench: str, row: type):
    figures = {each.name for each in fields(row)}
    assert figures.issuperset(FEATURES[bench])
    names = figures | {name for name, each in vars(row).items() if isinstance(each, property)}
    assert names.issuperset(CHARTS[bench])


def test_each_bench_has_its_features_and_charts():
    assert set(FEATURES) == set(CHARTS) == set(BENCHES)


def figures_of_two(printed: str) -> list[list[str]]:
    """Of the table of two runs: the figure, old, new and the ratio; what of may stand above it."""
    lines = (line for line in printed.splitlines() if line.startswith("│"))
    return [[cell.strip() for cell in line.strip("│").split("│")][-4:] for line in lines]


def test_two_runs_are_matched_by_what_was_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    old = file(tmp_path / "a.json", [engine_row(1.0), engine_row(2.0, together=4)])
    rows = [{**engine_row(6.0, loras=1), "repeats": 5}, {**engine_row(0.5), "repeats": 5}]
    new = file(tmp_path / "b.json", rows, hardware={"cpu": "another", "cores": 2})
    assert main(["report", old, new]) == 0
    printed = capsys.readouterr().out
    seconds = [line[1:] for line in figures_of_two(printed) if line[0] == "seconds"]
    assert seconds == [["1", "0.5", "0.5"]]
    assert "not the same: hardware cpu" in printed
    assert printed.endswith(
        "only in the old run: together 4\nonly in the new run: together 1, loras 1\n"
    )


def test_a_page_of_two_runs_names_them_and_says_which_way_is_better(tmp_path: Path):
    old = file(tmp_path / "a.json", [{**engine_row(1.0), "step_ms": 100.0}])
    new = file(tmp_path / "b.json", [{**engine_row(0.5), "step_ms": 50.0}])
    page = tmp_path / "c.html"
    assert main(["report", old, new, "--html", str(page)]) == 0
    better = "seconds: new to old <small>under 1 is better: less time</small>"
    found = page.read_text("utf-8")
    assert titles(found) == [f"Old: {old}", f"New: {new}", better, "All results"]
    assert "step ms" in found
    assert "phases sampling" in found


def worker_row(**counts: int) -> dict[str, Any]:
    measured = {"seconds": 30.0, "images_per_hour": 3600 * counts["images"] / 30}
    return {"workload": "four pictures a job", "latency_ms": 200, **counts, **measured}


@pytest.mark.parametrize("counts", [{"jobs": 25, "images": 96}, {"jobs": 24, "images": 95}])
def test_counts_of_what_happened_do_not_part_two_runs(
    counts: dict[str, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    old = file(tmp_path / "a.json", [worker_row(jobs=24, images=96)], "worker")
    new = file(tmp_path / "b.json", [worker_row(**counts)], "worker")
    assert main(["report", old, new, "--html", str(tmp_path / "c.html")]) == 0
    printed = capsys.readouterr().out
    assert "only in" not in printed
    assert ["jobs", "24", str(counts["jobs"])] in [line[:3] for line in figures_of_two(printed)]
    more = "images per hour: new to old <small>over 1 is better: more in the same time</small>"
    assert more in titles((tmp_path / "c.html").read_text("utf-8"))


def test_a_job_that_failed_was_wanted_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    def row(jobs: int, faulted: int, cpu_ms: float) -> dict[str, Any]:
        return {"kind": "jobs", "jobs": jobs, "faulted": faulted, "bridge_cpu_ms": cpu_ms}

    old = file(tmp_path / "a.json", [row(10, 0, 8.0), row(100, 0, 6.0)], "scale")
    new = file(tmp_path / "b.json", [row(99, 1, 3.0), row(10, 0, 2.0)], "scale")
    assert main(["report", old, new]) == 0
    printed = capsys.readouterr().out
    assert [line[1:3] for line in figures_of_two(printed) if line[0] == "bridge cpu ms"] == [
        ["8", "2"],
        ["6", "3"],
    ]


def test_proposals_are_shown_beside_each_other_without_a_ratio(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    def row(now: object, proposed: object) -> dict[str, Any]:
        return {"key": "max_power", "now": now, "proposed": proposed, "measured": {"a_seconds": 2}}

    old = file(tmp_path / "a.json", [row(8, 32)], "tune")
    new = file(tmp_path / "b.json", [row(32, 64)], "tune")
    assert main(["report", old, new, "--html", str(tmp_path / "c.html")]) == 0
    printed = capsys.readouterr().out
    assert figures_of_two(printed) == [["tune", "proposed", "32", "64"]]
    assert "ratio" not in printed
    assert "<svg" not in (tmp_path / "c.html").read_text("utf-8")


def test_two_runs_with_nothing_alike_are_told_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    old = file(tmp_path / "a.json", [engine_row(1.0)])
    new = file(tmp_path / "b.json", [engine_row(1.0, together=4)])
    page = tmp_path / "c.html"
    assert main(["report", old, new, "--html", str(page)]) == 1
    told = f"error: no row of {old} measured the same as one of {new}\n"
    assert capsys.readouterr().err == told
    assert not page.exists()


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
    ("row", "told"),
    [
        (engine_row(1.0, images="x"), "row 2, job.images: 'x' is no whole number above 0"),
        (engine_row(1.0, together=0), "row 2, job.together: 0 is no whole number above 0"),
        (engine_row(1.0, {"text": "abc"}), "row 2, phases.text: 'abc' is no number"),  # pyright: ignore
        (engine_row(float("inf")), "row 2, seconds: inf is no number under 1e+18"),
        ({**engine_row(1.0), "model": ["a"]}, "row 2, model: ['a'] is no word or number"),
        ({}, "row 2 does not say what was measured: model, family, job"),
    ],
)
def test_a_figure_that_cannot_be_is_named_with_its_row(
    row: dict[str, Any], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    run = file(tmp_path / "a.json", [engine_row(1.0), row])
    assert main(["report", run, "--html", str(tmp_path / "a.html")]) == 2
    assert capsys.readouterr().err == f"error: {run}: {told}\n"
    assert not (tmp_path / "a.html").exists()


def test_a_list_of_anything_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    row = {"key": "k", "now": [{"a": 1}, True], "proposed": [], "reason": "r"}
    assert main(["report", file(tmp_path / "a.json", [row], "tune")]) == 0
    assert "{'a': 1}, yes" in capsys.readouterr().out


def test_a_run_of_no_known_bench_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run = file(tmp_path / "a.json", [{"model": "m"}], "nothing")
    assert main(["report", run]) == 2
    assert "no benchmark of this version is called 'nothing'" in capsys.readouterr().err


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
    one = file(tmp_path / "a.json", [engine_row(1.0)])
    other = file(tmp_path / "b.json", [{"side": 64}], "memory")
    assert main(["report", one, other]) == 2
    told = "error: a run of engine can't be compared with one of memory\n"
    assert capsys.readouterr().err == told
