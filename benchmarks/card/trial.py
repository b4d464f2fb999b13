"""What the steps of a trial of a card have in common: models, jobs, and how they tell."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from benchmarks.card.card import FOUND
from hordelib import Engine, Generation, GenerationParams
from hordelib.demo_model import ensure_checkpoint
from hordelib.job.images import Picture
from hordelib.job.samplers import SAMPLERS
from hordelib.memory.readings import main_memory

MIB = 1 << 20
TINY = "demo"
JOBS = {
    "sd15": GenerationParams(prompt="", width=512, height=512, steps=20),
    "sdxl": GenerationParams(prompt="", width=1024, height=1024, steps=20),
    TINY: GenerationParams(prompt="", width=64, height=64, steps=2),
}


class NotHere(Exception):
    """This step says nothing on this machine; one line that says why."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One step's view: the folder of the models, and whether all is tiny."""

    folder: Path
    is_tiny: bool

    @property
    def device(self) -> str:
        return "cuda:0" if torch.cuda.is_available() else "cpu"

    @property
    def kinds(self) -> tuple[str, ...]:
        return (TINY,) if self.is_tiny else ("sd15", "sdxl")

    def insist_on_card(self) -> None:
        if self.device == "cpu":
            raise NotHere("there is no card")

    def say(self, what: str, value: float | str, unit: str = "") -> None:
        """At once, so that it counts though the step's time may be over before its end."""
        told = {"told": value} if isinstance(value, str) else {"value": round(float(value), 5)}
        print(FOUND + json.dumps({"what": what, "unit": unit, **told}), flush=True)

    def model(self, kind: str, number: int = 0) -> Path:
        """A checkpoint; number 1 is another one to the engine, with the same content."""
        path = self.folder / f"{kind}.safetensors"
        if kind == TINY and not path.exists():
            shutil.copyfile(ensure_checkpoint(self.folder), path)
        if not path.exists():
            raise NotHere(f"there is no {path.name}: the step `models` makes it")
        other = self.folder / f"{kind} {number}.safetensors"
        if not other.exists():
            os.link(path, other)
        return other

    def job(self, kind: str, prompt: str, **changes: Any) -> GenerationParams:
        """With a prompt of its own, so that nothing of it is kept from another one."""
        return replace(JOBS[kind], prompt=prompt, sampler=SAMPLERS["k_euler"], **changes)

    def engine(self, **options: Any) -> Engine:
        return Engine(device=self.device, ram_reserve_bytes=self._ram_reserve(), **options)

    def free_bytes(self) -> int:
        """Of the card."""
        return torch.cuda.mem_get_info(self.device)[0]

    def _ram_reserve(self) -> int:
        return min(1 << 30, main_memory().total_bytes // 8)


def seconds_of(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def median_seconds(work: Callable[[int], object], rounds: int) -> float:
    """Of `rounds` calls after one that warms up; `work` is told which it is."""
    work(0)
    return median(seconds_of(partial(work, i)) for i in range(1, rounds + 1))


def step_ms(made: Generation, steps: int) -> float:
    return 1000 * made.phases.get("sampling", 0.0) / steps


def apart(one: Picture, other: Picture) -> str:
    """How far two pictures are from each other, 0 to 255."""
    first, second = (np.asarray(each.to_pil(), dtype=np.int16) for each in (one, other))
    between = np.abs(first - second)
    share = 100 * float((between > 0).mean())
    return f"mean {between.mean():.4f}, most {between.max()}, {share:.2f} % of values"
