"""Families whose parts don't fit a card of 12 GiB together, at full size, with shapes alone.

Run by hand: `python -m tests.simcard.large_families FOLDER [GIB]`; $ONLY names a family.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from hordelib.files.model import Model
from tests.simcard.bench import JOB, Bench, Scenario, tell
from tests.simcard.card import MIB, Card
from tests.simcard.large_models import (
    write_cascade,
    write_flux,
    write_qwen_image,
    write_z_image,
)


def job_after_job(bench: Bench, write: Callable[[Path], Model], jobs: int) -> Mapping[str, Any]:
    """Each with a prompt of its own, so that all parts compute; `jobs` is the number of steps, too:
    without a second one, nothing is seen of what is streamed in each."""
    model = write(bench.folder)
    job = replace(JOB, width=1024, height=1024, steps=jobs, cfg=1.0)
    made = [bench.make(replace(job, prompt=f"circle {i}"), model) for i in range(jobs)]
    return {"jobs": made, "left": bench.evict(), "reserve": bench.reserve_bytes // MIB}


LEAST_GIB = {"qwen_image": 24}  # smaller cards are not offered it
FAST = ("fp16_accumulation", "sage_attention")  # the second one has no package here


def fast_ways(_bench: Bench) -> Mapping[str, Any]:
    """What ComfyUI has heard of them."""
    memory: Any = import_module("comfy.model_management")
    return {
        "prefers_fp16": memory.PRIORITIZE_FP16,
        "has_sage_attention": memory.sage_attention_enabled(),
    }


# And how many jobs: those with one take half a minute of a processor for it.
FAMILIES: dict[str, tuple[Callable[[Path], Model], int]] = {
    "flux": (lambda folder: write_flux(folder / "flux.safetensors"), 2),
    "cascade": (write_cascade, 1),
    "qwen_image": (write_qwen_image, 1),
    "z_image": (write_z_image, 1),
}

if __name__ == "__main__":
    gib = int(sys.argv[2]) if len(sys.argv) > 2 else 12
    scenarios: dict[str, Scenario] = {
        name: partial(job_after_job, write=write, jobs=jobs)
        for name, (write, jobs) in FAMILIES.items()
        if gib >= LEAST_GIB.get(name, 0) and name not in sys.argv[3:]  # those are left out
    }
    scenarios["fast"] = fast_ways
    card = Card(gib * 1024 * MIB, has_numbers=False)
    tell(Bench(card, Path(sys.argv[1]), fast=FAST), scenarios)
