"""An engine on a simulated card, and what each job does to the card.

A process has one card: scenarios run in a child, which prints one line of JSON for all of them.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hordelib import Engine, GenerationParams
from hordelib.engine import Generation, OnStep, unwatched
from hordelib.files.model import Model
from hordelib.job.samplers import SAMPLERS
from tests.simcard.card import MIB, Card
from tests.simcard.driver import insert
from tests.support.owner import PROJECT

Scenario = Callable[["Bench"], Mapping[str, Any]]

JOB = GenerationParams(
    prompt="a red circle on a blue background",
    width=512,
    height=512,
    seed=11,
    steps=1,
    cfg=7.0,
    sampler=SAMPLERS["k_euler"],
)


@dataclass(frozen=True, slots=True)
class Report:
    """What one job did to the card. MiB."""

    images: int
    copied: int
    returned: int
    lowest_free: int
    predicted: int
    measured: int
    empties: int


class Bench:
    """An engine on the card, with `folder` for the files of its models."""

    def __init__(
        self,
        card: Card,
        folder: Path,
        reserve_bytes: int = 400 * MIB,
        fast: Collection[str] = (),
    ):
        insert(card)
        self.card, self.folder = card, folder
        self.reserve_bytes = reserve_bytes
        self.engine = Engine(device="cuda:0", vram_reserve_bytes=reserve_bytes, fast=fast)
        self.engine.start()
        gc.freeze()  # as its child process does: no model that goes has all of ComfyUI looked at
        self.last: Generation | None = None

    def make(
        self, params: GenerationParams, model: Path | Model, on_step: OnStep = unwatched
    ) -> Report:
        card = self.card
        card.lowest_free_bytes = card.free_bytes
        copied, returned, empties = card.copied_bytes, card.returned_bytes, card.empties
        self.last = self.engine.generate(params, model, on_step)
        return Report(
            images=len(self.last.images),
            copied=(card.copied_bytes - copied) // MIB,
            returned=(card.returned_bytes - returned) // MIB,
            lowest_free=card.lowest_free_bytes // MIB,
            predicted=self.last.predicted_bytes // MIB,
            measured=self.last.measured_bytes // MIB,
            empties=card.empties - empties,
        )

    def evict(self) -> float:
        """Take all models off the card; the MiB that something still has there."""
        self.engine._thread.submit(self._evict).result()
        gc.collect()
        return self.card.allocator.allocated_bytes / MIB

    def _evict(self) -> None:
        assert self.engine._loaded is not None
        self.engine._loaded.models.release()
        self.engine._loaded.cache.make_room(1 << 50)
        self.engine._loaded.cache._forget()


def tell(bench: Bench, scenarios: Mapping[str, Scenario]) -> None:
    """Run all, and print what they came to; an error is told in the place of its scenario.

    By hand, $ONLY names those that are wanted, with commas.
    """
    wanted = os.environ.get("ONLY", "").split(",") if "ONLY" in os.environ else ()
    told: dict[str, Any] = {}
    for name, scenario in scenarios.items():
        if wanted and name not in wanted:
            continue
        try:
            told[name] = dict(scenario(bench))
        except Exception:  # noqa: BLE001 - the tests that need it tell
            told[name] = {"error": traceback.format_exc()}
        finally:
            bench.card.fault, bench.card.others_bytes, bench.card.has_nvml = None, 0, True
    print("\n" + json.dumps(told, default=asdict), flush=True)
    os._exit(0)  # the card's patches last as long as the process: nothing is to be taken apart


def told_by(module: str, *arguments: object) -> dict[str, Any]:
    """What the scenarios of a module came to, in a process of its own."""
    command = [sys.executable, "-P", "-m", module, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def told_of(told: dict[str, Any], scenario: str) -> dict[str, Any]:
    """One of them; fails where it raised."""
    seen = told[scenario]
    assert "error" not in seen, seen["error"]
    return seen
