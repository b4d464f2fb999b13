"""The bench of many jobs, queues and devices, at its smallest; and how its jobs are spread."""

from __future__ import annotations

import json
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.measure import scale
from benchmarks.measure.workloads import MIX, Kind, evenly

SOME = 10


@pytest.mark.usefixtures("checkpoint")
def test_all_jobs_of_one_device_and_of_two_are_submitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(scale, "QUICK", ((SOME,), (), (2,)))
    monkeypatch.setattr(scale, "DEVICE_JOBS", SOME)
    found = tmp_path / "scale.json"
    assert main(["scale", "--quick", "--job-ms", "20", "--json", str(found)]) == 0
    one, two = json.loads(found.read_text())["results"]
    assert (one["kind"], one["devices"], one["jobs"], one["faulted"]) == ("jobs", 1, SOME, 0)
    assert (two["kind"], two["devices"], two["jobs"], two["faulted"]) == ("devices", 2, 2 * SOME, 0)
    assert one["p50_seconds"] <= one["p95_seconds"]
    assert two["p50_seconds"] >= 0.02  # what a job takes on its device


def test_a_kind_comes_as_often_as_its_share_and_never_long_without():
    rare, usual = Kind(share=1), Kind({"steps": 5}, share=3)
    assert list(islice(evenly((usual, rare)), 8)) == [usual, usual, rare, usual] * 2
    whole = sum(kind.share for kind in MIX)
    counts = Counter(MIX.index(kind) for kind in islice(evenly(MIX), 2 * whole))
    assert whole == 100
    assert [counts[place] for place in range(len(MIX))] == [2 * kind.share for kind in MIX]
