"""Stable Diffusion XL at 1024 pixels, one job after another with one model, with shapes alone.

Run by hand with other sizes: `python -m tests.simcard.sdxl_job_after_job FOLDER GIB JOBS`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tests.simcard.bench import JOB, Bench, tell
from tests.simcard.card import MIB, Card
from tests.simcard.whole_models import write_whole_sdxl


def one_after_another(bench: Bench, jobs: int) -> Mapping[str, Any]:
    path = bench.folder / "sdxl.safetensors"
    path = path if path.exists() else write_whole_sdxl(path)
    job = replace(JOB, width=1024, height=1024)
    return {"jobs": [bench.make(replace(job, prompt=f"circle {i}"), path) for i in range(jobs)]}


if __name__ == "__main__":
    card = Card(int(float(sys.argv[2]) * 1024) * MIB, has_numbers=False)
    scenario = partial(one_after_another, jobs=int(sys.argv[3]))
    tell(Bench(card, Path(sys.argv[1])), {"one_after_another": scenario})
