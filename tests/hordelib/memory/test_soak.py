"""Many jobs in little memory, in a process of their own; `--soak-jobs 300` for the long run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hordelib.demo_model import ensure_lora
from tests.conftest import PROJECT
from tests.support.soak import COPIES, RESERVE_BYTES

WARM_UP = 20
WINDOW = 10  # jobs: a round over all models, with and without the LoRA


@pytest.mark.timeout(3600)
def test_memory_stays_as_it_is_after_the_first_jobs(
    checkpoint: Path, models: Path, request: pytest.FixtureRequest
):
    """The most of a round: from one job to the next it depends on which UNets are ready to compute,
    and one is 5 % of it all.
    """
    jobs = int(str(request.config.getoption("--soak-jobs")))
    arguments = [str(checkpoint), str(ensure_lora(models)), str(jobs)]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "tests.support.soak", *arguments],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=True,
    )
    seen = json.loads(done.stdout)
    after_first, at_end = _most_of_rounds(seen["resident"])
    assert at_end == pytest.approx(after_first, rel=0.05)
    after_first, at_end = _most_of_rounds(seen["anonymous"])
    assert at_end <= 1.05 * after_first  # it may fall: estimates learn
    assert seen["lowest"] >= RESERVE_BYTES
    assert len(seen["reads"]) == len(set(seen["reads"])) == 3 * COPIES + 1  # and the LoRA


def _most_of_rounds(readings: list[int]) -> tuple[int, int]:
    """In the last round of the first jobs, and in the last of all."""
    return max(readings[WARM_UP - WINDOW : WARM_UP]), max(readings[-WINDOW:])
