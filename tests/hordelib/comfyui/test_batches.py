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


CUDA_OOM = torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB.")
# What CUDA's libraries raise, and what allocates beside torch's allocator.
MISNAMED = (
    torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be ..."),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
)


@contextmanager
def out_of_memory(
    owner: type, method: str, when: Callable[[Any], bool], error: Exception = CUDA_OOM
) -> Generator[list[int]]:
    """The method raises what CUDA raises where `when` says so of its input; its batch sizes."""
    original: Call = getattr(owner, method)
    sizes: list[int] = []

    def limited(self: Any, value: Any, *arguments: Any, **options: Any) -> Any:
        sizes.append(len(value))
        if when(value):
            raise error
        return original(self, value, *arguments, **options)

    setattr(owner, method, limited)
    try:
        yield sizes
    finally:
        setattr(owner, method, original)


def unet_limited_to(images: int, error: Exception = CUDA_OOM) -> Any:
    from comfy.model_base import BaseModel

    return out_of_memory(BaseModel, "apply_model", lambda latents: len(latents) > 2 * images, error)


def decoder_limited_to(height: int, error: Exception = CUDA_OOM) -> Any:
    from comfy.taesd.taesd import Block

    return out_of_memory(Block, "forward", lambda latents: latents.shape[-2] > height, error)


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


@pytest.mark.parametrize("error", MISNAMED, ids=lambda error: str(error)[:40])
def test_memory_that_runs_out_by_another_name_halves_the_batch_and_tiles_the_picture(
    engine: Engine, checkpoint: Path, error: Exception
):
    engine.generate(replace(JOB, prompt="something else"), checkpoint)
    with unet_limited_to(images=2, error=error) as sizes:
        assert len(engine.generate(JOB, checkpoint).images) == 4
    assert sizes == [8, 4, 4]
    wide = replace(JOB, width=64, height=1280, images=1, seed=5)
    with decoder_limited_to(height=1024, error=error) as tries:
        assert len(engine.generate(wide, checkpoint).images) == 1
    assert len(tries) > 1


def test_out_of_memory_moves_no_weights_to_main_memory(
    engine: Engine, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
):
    """ComfyUI's executor would unload all models, where the system may have no room for them."""
    from comfy.model_management import LoadedModel

    unloaded: list[Any] = []
    original = LoadedModel.model_unload

    def model_unload(model: Any, *arguments: Any, **options: Any) -> Any:
        unloaded.append(model)
        return original(model, *arguments, **options)

    engine.generate(JOB, checkpoint)
    monkeypatch.setattr(LoadedModel, "model_unload", model_unload)
    with unet_limited_to(images=0), pytest.raises(OutOfMemory):
        engine.generate(replace(JOB, seed=6), checkpoint)
    assert not unloaded


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
    with decoder_limited_to(height=1024):
        tiled = engine.generate(wide, checkpoint).images[0]
    apart = abs(pixels(whole).astype(int) - pixels(tiled)).mean()
    assert 0 < apart < 1  # the seams of tiles, not another picture


def test_a_job_that_never_fits_names_the_memory_and_the_engine_goes_on(
    engine: Engine, checkpoint: Path
):
    with unet_limited_to(images=0), pytest.raises(OutOfMemory, match=r"sampler.*CUDA.*9\.00 GiB"):
        engine.generate(JOB, checkpoint)
    assert len(engine.generate(JOB, checkpoint).images) == 4
