"""Checkpoints of Stable Diffusion 1.5 and XL, a ControlNet and an upscaler, whose weights are holes
in files."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from benchmarks.card.layouts import Shapes, sd1, sdxl
from tests.support.family_files import write_header


def write_whole_sd1(path: Path) -> Path:
    """2.0 GiB in 16 bits."""
    return write_header(path, sd1(), prefix="")


def write_whole_sdxl(path: Path) -> Path:
    """6.5 GiB in 16 bits."""
    return write_header(path, sdxl(), prefix="")


def write_whole_control_net(path: Path) -> Path:
    """Of Stable Diffusion 1.5: 0.7 GiB in 16 bits."""
    make: Any = import_module("comfy.cldm.cldm").ControlNet
    network = make(
        image_size=32,
        in_channels=4,
        hint_channels=3,
        model_channels=320,
        num_res_blocks=[2, 2, 2, 2],
        channel_mult=[1, 2, 4, 4],
        num_heads=8,
        use_spatial_transformer=True,
        transformer_depth=[1, 1, 1, 1, 1, 1, 0, 0],
        transformer_depth_middle=1,
        context_dim=768,
        legacy=False,
        device="meta",
        operations=import_module("comfy.ops").manual_cast,
    )
    return write_header(path, _shapes_of(network), "control_model.")


def write_whole_upscaler(path: Path) -> Path:
    """RealESRGAN_x4plus: 64 MiB in 32 bits."""
    from spandrel.architectures.ESRGAN import ESRGAN

    with torch.device("meta"):
        network = ESRGAN(num_filters=64, num_blocks=23, scale=4)
    return write_header(path, _shapes_of(network), "", "F32", 4)


def _shapes_of(network: Any) -> Shapes:
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}
