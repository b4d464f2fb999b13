"""Checkpoints of Stable Diffusion 1.5 and XL in all layers, whose weights are holes in files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tests.support import layouts
from tests.support.family_files import write_header
from tests.support.layouts import Shapes


def write_whole_sd1(path: Path) -> Path:
    """2.0 GiB in 16 bits."""
    unet = _unet(
        num_heads=8,
        context_dim=768,
        num_res_blocks=[2, 2, 2, 2],
        channel_mult=[1, 2, 4, 4],
        transformer_depth=[1, 1, 1, 1, 1, 1, 0, 0],
        transformer_depth_output=[1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
        transformer_depth_middle=1,
    )
    text = layouts._hugging_face_clip("cond_stage_model.transformer.text_model")
    return write_header(path, unet | text | _vae(), prefix="")


def write_whole_sdxl(path: Path) -> Path:
    """6.5 GiB in 16 bits."""
    unet = _unet(
        num_head_channels=64,
        context_dim=2048,
        num_res_blocks=[2, 2, 2],
        channel_mult=[1, 2, 4],
        transformer_depth=[0, 0, 2, 2, 10, 10],
        transformer_depth_output=[0, 0, 0, 2, 2, 2, 10, 10, 10],
        transformer_depth_middle=10,
        adm_in_channels=2816,
        num_classes="sequential",
        use_linear_in_transformer=True,
    )
    small = layouts._hugging_face_clip("conditioner.embedders.0.transformer.text_model")
    large = layouts._open_clip("conditioner.embedders.1.model", layers=32, width=1280)
    return write_header(path, unet | small | large | _vae(), prefix="")


def _unet(**settings: Any) -> Shapes:
    from comfy import ops
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    network: torch.nn.Module = UNetModel(
        image_size=32,
        in_channels=4,
        out_channels=4,
        model_channels=320,
        use_spatial_transformer=True,
        legacy=False,
        device="meta",
        operations=ops.manual_cast,
        **settings,
    )
    return {f"model.diffusion_model.{k}": tuple(v.shape) for k, v in network.state_dict().items()}


def _vae() -> Shapes:
    return {f"first_stage_model.{name}": shape for name, shape in layouts.kl_vae().items()}
