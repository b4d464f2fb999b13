"""Checkpoints of Stable Diffusion 1.5, XL and Flux, whose weights are holes in files."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.card.layouts import Shapes, hugging_face_clip, kl_vae, sd1, sdxl
from hordelib.files.model import Model
from hordelib.job.families import FLUX
from tests.support.family_files import UNET, write_header


def write_whole_sd1(path: Path) -> Path:
    """2.0 GiB in 16 bits."""
    return write_header(path, sd1(), prefix="")


def write_whole_sdxl(path: Path) -> Path:
    """6.5 GiB in 16 bits."""
    return write_header(path, sdxl(), prefix="")


def write_flux(path: Path) -> Model:
    """In 8 bits: 12 of the UNet's 57 blocks, which are 2.4 GiB, and all of T5, 4.4 GiB."""
    network = _shapes(
        "comfy.ldm.flux.model",
        "Flux",
        image_model="flux",
        patch_size=2,
        in_channels=16,
        out_channels=16,
        vec_in_dim=768,
        context_in_dim=4096,
        hidden_size=3072,
        mlp_ratio=4.0,
        num_heads=24,
        depth=4,
        depth_single_blocks=8,
        axes_dim=[16, 56, 56],
        theta=10000,
        qkv_bias=True,
        guidance_embed=False,
    )
    text = hugging_face_clip("text_encoders.clip_l.transformer.text_model")
    text |= _below("text_encoders.t5xxl.transformer.", _t5())
    shapes = _below(UNET, network) | text | _below("vae.", _vae_of_16_channels())
    write_header(path, shapes, "", "F8_E4M3", 1)
    return Model(FLUX.name, FLUX, {"checkpoint": path})


def _t5() -> Shapes:
    config = {
        "d_ff": 10240,
        "d_kv": 64,
        "d_model": 4096,
        "dense_act_fn": "gelu_pytorch_tanh",
        "is_gated_act": True,
        "num_heads": 64,
        "num_layers": 24,
        "vocab_size": 32128,
        "model_type": "t5",
    }
    return _shapes("comfy.text_encoders.t5", "T5", config_dict=config, dtype=None)


def _vae_of_16_channels() -> Shapes:
    shapes = {name: shape for name, shape in kl_vae().items() if "quant_conv" not in name}
    shapes["encoder.conv_out.weight"] = (32, *shapes["encoder.conv_out.weight"][1:])
    shapes["encoder.conv_out.bias"] = (32,)
    first = shapes["decoder.conv_in.weight"]
    shapes["decoder.conv_in.weight"] = (first[0], 16, *first[2:])
    return shapes


def _shapes(module: str, name: str, **settings: Any) -> Shapes:
    """Of one of ComfyUI's classes."""
    operations: Any = import_module("comfy.ops").manual_cast
    network: Any = getattr(import_module(module), name)
    made: Any = network(device="meta", operations=operations, **settings)
    return {name: tuple(value.shape) for name, value in made.state_dict().items()}


def _below(prefix: str, shapes: Shapes) -> Shapes:
    return {prefix + name: shape for name, shape in shapes.items()}
