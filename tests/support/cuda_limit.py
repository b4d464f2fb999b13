"""Makes a batch on a card whose allocator has no room for it, and says what became of it.

Run alone, as `python -m tests.support.cuda_limit CHECKPOINT`: JSON with the sizes that the UNet was
asked for, and how far the pictures are from those made with room. The estimate is told that the job
takes next to nothing, so that it is CUDA that runs out of memory, and not the budget.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from hordelib import Engine
from hordelib.memory.corrections import LEAST, Corrections
from tests.hordelib.comfyui.test_batches import unet_limited_to
from tests.hordelib.test_engine import SMALL
from tests.support.looks import apart

JOB = replace(SMALL, width=512, height=512, steps=2, images=8)
RESERVE_BYTES = 400 << 20
NAMES = tuple(f"stable diffusion 1{part}" for part in ("", ", decoding", ", tiny VAE"))


def main(checkpoint: Path, device: str = "cuda:0") -> None:
    with Engine(device=device) as engine:
        engine.generate(replace(JOB, width=64, height=64), checkpoint)  # the weights are there
        together = engine.generate(JOB, checkpoint)
    with (
        tempfile.TemporaryDirectory() as folder,
        Engine(
            device=device,
            vram_reserve_bytes=RESERVE_BYTES,
            memory_file=_nothing_needed(Path(folder), device),
        ) as engine,
    ):
        engine.generate(replace(JOB, width=64, height=64), checkpoint)
        ballast = _ballast(device, together.measured_bytes * 3 // 4)
        with unet_limited_to(JOB.images) as sizes:  # which only counts
            halved = engine.generate(JOB, checkpoint).images
        del ballast
    between = [apart(*pair) for pair in zip(together.images, halved, strict=True)]
    print(json.dumps({"images": JOB.images, "sizes": sizes, "apart": between}))


def _nothing_needed(folder: Path, device: str) -> Path:
    file = folder / "memory.json"
    corrections = Corrections(torch.cuda.get_device_name(device), file)
    for name in NAMES:
        corrections.put(name, LEAST)
    return file


def _ballast(device: str, left_bytes: int) -> torch.Tensor:
    """What takes all of the card but the reserve and so much."""
    torch.cuda.empty_cache()
    free_bytes, _ = torch.cuda.mem_get_info(device)
    size_bytes = free_bytes - RESERVE_BYTES - left_bytes
    return torch.empty(size_bytes, dtype=torch.uint8, device=device)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
