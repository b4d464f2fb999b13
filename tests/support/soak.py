"""Many jobs over five copies of the demo model, in memory for two; prints this process' memory.

Run alone, as `python -m tests.support.soak CHECKPOINT LORA JOBS`: JSON with the resident and the
anonymous bytes after each job, the least free memory at any step, and what was read from disk.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from hordelib import Engine
from hordelib.files.model import Model
from hordelib.job.params import GenerationParams, Lora
from hordelib.job.samplers import SAMPLERS
from hordelib.memory.readings import anonymous_bytes

MIB = 1 << 20
COPIES = 5
UNET_BYTES = 140 * MIB  # as it is computed with
LORA_BYTES = 330 * MIB  # the weights that the LoRA changes, and what computing takes
RESERVE_BYTES = 64 * MIB
PARAMS = GenerationParams(
    prompt="a red circle on a blue background",
    width=64,
    height=64,
    steps=1,
    sampler=SAMPLERS["k_euler"],
)


@dataclass
class Container:
    """Main memory of a size that is known only once ComfyUI is loaded."""

    limit_bytes: int = 1 << 60
    lowest_bytes: int = 1 << 60

    def free_bytes(self) -> int:
        return self.limit_bytes - anonymous_bytes()

    def watch(self, _done: int, _total: int) -> None:
        self.lowest_bytes = min(self.lowest_bytes, self.free_bytes())


class Reads(logging.Handler):
    """What the cache says that it reads."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        told = record.getMessage()
        if told.startswith("reading "):
            self.names.append(told)


def main(checkpoint: Path, lora: Path, jobs: int) -> None:
    container, reads = Container(), Reads()
    log = logging.getLogger("hordelib.memory.cache")
    log.setLevel(logging.INFO)
    log.addHandler(reads)
    resident: list[int] = []
    anonymous: list[int] = []
    with (
        TemporaryDirectory(dir=checkpoint.parent) as folder,
        Engine(ram_reserve_bytes=RESERVE_BYTES, free_ram_bytes=container.free_bytes) as engine,
    ):
        engine.start()
        models = [_copy(checkpoint, Path(folder) / f"copy {i}.safetensors") for i in range(COPIES)]
        container.limit_bytes = anonymous_bytes() + 2 * UNET_BYTES + LORA_BYTES + RESERVE_BYTES
        for i in range(jobs):
            engine.generate(_job(i, lora), models[i % COPIES], container.watch)
            resident.append(psutil.Process().memory_info().rss)
            anonymous.append(anonymous_bytes())
    print(
        json.dumps(
            {
                "resident": resident,
                "anonymous": anonymous,
                "lowest": container.lowest_bytes,
                "reads": reads.names,
            }
        )
    )


def _copy(checkpoint: Path, path: Path) -> Model:
    os.link(checkpoint, path)
    return Model.of_checkpoint(path)


def _job(number: int, lora: Path) -> GenerationParams:
    """Every other one has the LoRA, each time of another strength."""
    strength = 0.1 + number % 7 / 10
    loras = (Lora("demo", lora, strength, strength),) if number % 2 else ()
    return replace(PARAMS, seed=number, loras=loras)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
