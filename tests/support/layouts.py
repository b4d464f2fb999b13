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

from hordelib.demo_model import TRAINED

Shapes = dict[str, tuple[int, ...]]
HALF_BYTES = 2


def write_sd2(path: Path) -> Path:
    """Stable Diffusion 2.x, one level deep: linear projections, OpenCLIP-H, 1024 wide."""
    unet = _unet(context_dim=1024, num_res_blocks=[1], channel_mult=[1], depths=[1])
    return _write(path, unet | _open_clip("cond_stage_model.model", layers=24, width=1024))


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
    small = _hugging_face_clip("conditioner.embedders.0.transformer.text_model")
    large = _open_clip("conditioner.embedders.1.model", layers=32, width=1280)
    return _write(path, unet | small | large)


def _unet(*, depths: list[int], **settings: Any) -> Shapes:
    """Names and shapes as ComfyUI's own class has them; on the meta device, without memory."""
    from comfy import ops
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    network: torch.nn.Module = UNetModel(
        image_size=32,
        in_channels=4,
        out_channels=4,
        model_channels=320,
        num_head_channels=64,
        use_spatial_transformer=True,
        use_linear_in_transformer=True,
        legacy=False,
        transformer_depth=list(depths),
        transformer_depth_middle=-2,
        transformer_depth_output=[depth for depth in depths for _ in range(2)],
        device="meta",
        operations=ops.manual_cast,
        **settings,
    )
    return {f"model.diffusion_model.{k}": tuple(v.shape) for k, v in network.state_dict().items()}


def kl_vae() -> Shapes:
    """The VAE of all Stable Diffusion models, as ComfyUI's own class has it."""
    from comfy.ldm.models.autoencoder import AutoencoderKL

    sizes = {"z_channels": 4, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": 128}
    shape = {"ch_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_resolutions": [], "dropout": 0.0}
    with torch.device("meta"):
        network: torch.nn.Module = AutoencoderKL(
            ddconfig={"double_z": True, **sizes, **shape}, embed_dim=4
        )
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}


def _open_clip(prefix: str, *, layers: int, width: int) -> Shapes:
    shapes: Shapes = {
        "positional_embedding": (77, width),
        "token_embedding.weight": (49408, width),
        "ln_final.weight": (width,),
        "ln_final.bias": (width,),
        "text_projection": (width, width),
    }
    for layer in range(layers):
        block = f"transformer.resblocks.{layer}."
        shapes |= {
            f"{block}attn.in_proj_weight": (3 * width, width),
            f"{block}attn.in_proj_bias": (3 * width,),
            f"{block}attn.out_proj.weight": (width, width),
            f"{block}attn.out_proj.bias": (width,),
            f"{block}mlp.c_fc.weight": (4 * width, width),
            f"{block}mlp.c_fc.bias": (4 * width,),
            f"{block}mlp.c_proj.weight": (width, 4 * width),
            f"{block}mlp.c_proj.bias": (width,),
        }
        for norm in ("ln_1", "ln_2"):
            shapes |= {f"{block}{norm}.weight": (width,), f"{block}{norm}.bias": (width,)}
    return {f"{prefix}.{name}": shape for name, shape in shapes.items()}


def _hugging_face_clip(prefix: str, layers: int = 12, width: int = 768) -> Shapes:
    shapes: Shapes = {
        "embeddings.token_embedding.weight": (49408, width),
        "embeddings.position_embedding.weight": (77, width),
        "final_layer_norm.weight": (width,),
        "final_layer_norm.bias": (width,),
    }
    for layer in range(layers):
        block = f"encoder.layers.{layer}."
        sizes = {"mlp.fc1": (4 * width, width), "mlp.fc2": (width, 4 * width)}
        sizes |= {f"self_attn.{name}_proj": (width, width) for name in ("q", "k", "v", "out")}
        for name, (out, into) in sizes.items():
            shapes |= {f"{block}{name}.weight": (out, into), f"{block}{name}.bias": (out,)}
        for norm in ("layer_norm1", "layer_norm2"):
            shapes |= {f"{block}{norm}.weight": (width,), f"{block}{norm}.bias": (width,)}
    return {f"{prefix}.{name}": shape for name, shape in shapes.items()}


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
