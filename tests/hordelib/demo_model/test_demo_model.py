"""The demo checkpoint is the trained model: the same numbers, in Stable Diffusion 1.5's layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from hordelib import demo_checkpoint
from hordelib.demo_model import TRAINED, expand
from tests.support.narrow_unet import Weights, predict_noise
from tests.support.whole_checkpoint import load_whole


@pytest.fixture(scope="module")
def trained() -> dict[str, torch.Tensor]:
    weights = load_file(TRAINED)
    return {k.removeprefix("unet."): v.float() for k, v in weights.items() if k[:5] == "unet."}


@pytest.mark.usefixtures("engine")
def test_the_expanded_network_computes_what_the_trained_one_does(
    checkpoint: Path, trained: dict[str, torch.Tensor]
):
    """In ComfyUI itself, for several sizes, times and texts."""
    full: Any = load_whole(checkpoint).model.model.diffusion_model.float()
    generator = torch.Generator().manual_seed(1)
    for height, width, tokens in ((8, 8, 77), (16, 8, 154)):
        latents = torch.randn(2, 4, height, width, generator=generator)
        text = torch.randn(2, tokens, 768, generator=generator)
        times = torch.tensor([3.0, 900.0])
        with torch.inference_mode():
            narrow = predict_noise(Weights(trained), latents, times, text)
            expanded = full(latents, times, context=text)
        assert (narrow - expanded).abs().max() < 5e-5


def test_every_trained_number_is_in_the_checkpoint_and_the_rest_is_zero(
    checkpoint: Path, trained: dict[str, torch.Tensor]
):
    written = load_file(checkpoint)
    for key, value in trained.items():
        full = written[f"model.diffusion_model.{key}"]
        live = full[full != 0].sort().values
        assert torch.equal(live, value[value != 0].half().sort().values), key


def test_the_text_encoder_is_the_same_on_every_machine(checkpoint: Path):
    written = load_file(checkpoint)
    again = expand.text_encoder()
    assert all(
        torch.equal(written[f"cond_stage_model.transformer.{key}"], value)
        for key, value in again.items()
    )


def test_the_checkpoint_is_written_once(checkpoint: Path, models: Path):
    before = checkpoint.stat().st_mtime_ns
    assert demo_checkpoint(models) == checkpoint
    assert checkpoint.stat().st_mtime_ns == before
