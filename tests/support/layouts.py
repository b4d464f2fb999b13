"""Checkpoints in the real layouts of larger families, with weights of zero: all shapes, no disk.

A file of zeros is a hole, so gigabytes cost nothing; the demo model's own VAE makes pictures of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from benchmarks.card.layouts import Shapes, hugging_face_clip, open_clip, unet
from hordelib.demo_model import TRAINED

HALF_BYTES = 2


def write_sd2(path: Path) -> Path:
    """Stable Diffusion 2.x, one level deep: linear projections, OpenCLIP-H, 1024 wide."""
    unet = _unet(context_dim=1024, num_res_blocks=[1], channel_mult=[1], depths=[1])
    return _write(path, unet | open_clip("cond_stage_model.model", layers=24, width=1024))


def write_sdxl(path: Path) -> Path:
    """Stable Diffusion XL in the layout of KOALA-700M, its smallest kin: two text encoders."""
    unet = _unet(
        context_dim=2048,
        num_res_blocks=[1, 1, 1],
        channel_mult=[1, 2, 4],
        depths=[0, 2, 5],
        adm_in_channels=2816,
        num_classes="sequential",
    )
    small = hugging_face_clip("conditioner.embedders.0.transformer.text_model")
    large = open_clip("conditioner.embedders.1.model", layers=32, width=1280)
    return _write(path, unet | small | large)


def _unet(*, depths: list[int], **settings: Any) -> Shapes:
    return unet(
        num_head_channels=64,
        use_linear_in_transformer=True,
        transformer_depth=list(depths),
        transformer_depth_middle=-2,
        transformer_depth_output=[depth for depth in depths for _ in range(2)],
        **settings,
    )


def _write(path: Path, zeros: Mapping[str, tuple[int, ...]]) -> Path:
    """A safetensors file (length, JSON header, tensors) whose zeros are never written."""
    vae = {
        f"first_stage_model.{k[4:]}": v for k, v in load_file(TRAINED).items() if k[:4] == "vae."
    }
    header: dict[str, Any] = {}
    end = 0
    for name, shape in [*zeros.items(), *((name, tuple(t.shape)) for name, t in vae.items())]:
        size = torch.Size(shape).numel() * HALF_BYTES
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    start = 8 + len(text)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(start + end)
        for name, tensor in vae.items():
            file.seek(start + header[name]["data_offsets"][0])
            file.write(tensor.half().numpy().tobytes())
    return path
