"""What happens when the device's memory runs out: a real graph whose UNet or VAE says so."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hordelib import Engine
from hordelib.errors import OutOfMemory
from tests.hordelib.test_engine import SMALL
from tests.support.looks import difference, pixels

JOB = replace(SMALL, steps=1, images=4)
Call = Callable[..., Any]


@contextmanager
def out_of_memory(owner: type, method: str, when: Callable[[Any], bool]) -> Generator[list[int]]:
    """The method raises what CUDA raises where `when` says so of its input; its batch sizes."""
    original: Call = getattr(owner, method)
    sizes: list[int] = []

    def limited(self: Any, value: Any, *arguments: Any, **options: Any) -> Any:
        sizes.append(len(value))
        if when(value):
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB.")
        return original(self, value, *arguments, **options)

    setattr(owner, method, limited)
    try:
        yield sizes
    finally:
        setattr(owner, method, original)


def unet_limited_to(images: int) -> Any:
    from comfy.model_base import BaseModel

    return out_of_memory(BaseModel, "apply_model", lambda latents: len(latents) > 2 * images)


def decoder_limited_to(height: int) -> Any:
    from comfy.taesd.taesd import TAESD

    return out_of_memory(TAESD, "decode", lambda latents: latents.shape[-2] > height)


def test_a_batch_is_halved_until_it_fits_and_each_image_is_the_same(
    engine: Engine, checkpoint: Path
):
    together = engine.generate(JOB, checkpoint).images
    engine.generate(replace(JOB, prompt="something else"), checkpoint)
    with unet_limited_to(images=2) as sizes:
        halved = engine.generate(JOB, checkpoint).images
    assert sizes == [8, 4, 4]  # both prompts of each image
    assert [picture.seed for picture in halved] == [picture.seed for picture in together]
    assert all(difference(*pair) <= 2 for pair in zip(together, halved, strict=True))


def test_steps_still_end_at_their_total_after_a_batch_was_halved(engine: Engine, checkpoint: Path):
    seen: list[tuple[int, int]] = []
    with unet_limited_to(images=3):
        engine.generate(
            replace(JOB, seed=77), checkpoint, lambda done, total: seen.append((done, total))
        )
    assert seen[-1][0] == seen[-1][1]


def test_a_vae_without_memory_decodes_in_tiles(engine: Engine, checkpoint: Path):
    wide = replace(JOB, width=64, height=1280, images=1, seed=5)
    whole = engine.generate(wide, checkpoint).images[0]
    engine.generate(replace(JOB, images=1), checkpoint)
    with decoder_limited_to(height=128):
        tiled = engine.generate(wide, checkpoint).images[0]
    apart = abs(pixels(whole).astype(int) - pixels(tiled)).mean()
    assert 0 < apart < 1  # the seams of tiles, not another picture


def test_a_job_that_never_fits_names_the_memory_and_the_engine_goes_on(
    engine: Engine, checkpoint: Path
):
    with unet_limited_to(images=0), pytest.raises(OutOfMemory, match=r"sampler.*CUDA.*9\.00 GiB"):
        engine.generate(JOB, checkpoint)
    assert len(engine.generate(JOB, checkpoint).images) == 4
