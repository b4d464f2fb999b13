"""The bench of predicted seconds: rows of jobs never seen before, and a worker that learns them."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.measure.drawn_jobs import Kinds, draw_jobs
from hordelib.job.families import SD1
from worker.service.assembly import make_predictor
from worker.service.state_folder import StateFolder


@pytest.mark.usefixtures("engine", "checkpoint")
def test_jobs_are_predicted_before_they_are_learnt_and_a_worker_can_be_taught(tmp_path: Path):
    state, found = tmp_path / "state", tmp_path / "seconds.json"
    state.mkdir()
    arguments = ["seconds", "--quick", "--jobs", "3", "--rounds", "2", "--largest", "64"]
    assert main([*arguments, "--teach", str(state), "--json", str(found)]) == 0
    (row,) = json.loads(found.read_text())["results"]
    assert (row["rounds"], row["learnt"], row["jobs"]) == (2, 1, 3)
    assert row["median_seconds"] > 0
    job = draw_jobs(1, 7, Kinds(64))[0]
    assert make_predictor(state).predict(job, SD1).jobs == 3


def test_a_worker_that_runs_is_not_taught(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with closing(StateFolder.open(tmp_path / "state")) as state:
        assert main(["seconds", "--teach", str(state.path)]) == 2
    assert "runs with" in capsys.readouterr().err


@pytest.mark.parametrize("largest", ["10", "-64", "5000", "a lot"])
def test_sides_that_no_job_can_have_are_refused(largest: str):
    with pytest.raises(SystemExit, match="2"):
        main(["seconds", f"--largest={largest}"])


def test_the_same_seed_draws_the_same_jobs_and_no_prompt_twice():
    jobs = draw_jobs(60, 1, Kinds(256))
    assert jobs == draw_jobs(60, 1, Kinds(256))
    assert len({job.prompt for job in jobs}) == 60
    assert draw_jobs(5, 2, Kinds(256)) != jobs[:5]
