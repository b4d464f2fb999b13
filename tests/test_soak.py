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
from tests.soak import COPIES, RESERVE_BYTES

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
        [sys.executable, "-P", "-m", "tests.soak", *arguments],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=True,
    )
    seen = json.loads(done.stdout)
    for memory in ("resident", "anonymous"):
        after_first, at_end = seen[memory][WARM_UP - WINDOW : WARM_UP], seen[memory][-WINDOW:]
        assert max(at_end) == pytest.approx(max(after_first), rel=0.05)
    assert seen["lowest"] >= RESERVE_BYTES
    assert len(seen["reads"]) == len(set(seen["reads"])) == 3 * COPIES + 1  # and the LoRA
