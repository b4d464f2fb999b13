"""Files for what the demo model alone can't show: models that see a source, and an upscaler."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from spandrel.architectures.Compact import Compact

FIRST_WEIGHT = "model.diffusion_model.input_blocks.0.0.weight"


def write_seeing(checkpoint: Path, into: Path, channels: int, attention: float) -> None:
    """The checkpoint with a UNet of more input channels, as inpainting and pix2pix models have.

    The new ones see as the ordinary ones do, `attention` times as strongly; with 0 the model draws
    what the ordinary one draws. Raises OSError when it can't be written.
    """
    weights = load_file(checkpoint)
    first = weights[FIRST_WEIGHT]
    more = first[:, [i % 4 for i in range(channels - 4)]] * attention
    weights[FIRST_WEIGHT] = torch.cat([first, more], dim=1)
    partial = into.with_suffix(".partial")
    save_file(weights, partial)
    partial.replace(into)


def write_upscaler(into: Path) -> None:
    """An upscaler of 4 times each side that repeats pixels: all that it adds to that is zero."""
    network = Compact(num_feat=4, num_conv=1, upscale=4)
    state = {name: torch.zeros_like(value) for name, value in network.state_dict().items()}
    save_file(state, into)
