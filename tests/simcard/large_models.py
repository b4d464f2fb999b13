"""Models of Flux, Cascade, Qwen-Image and Z-Image at their full size, whose weights are holes."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from benchmarks.card.layouts import Shapes, hugging_face_clip, kl_vae
from hordelib.files.model import Model
from hordelib.job.families import CASCADE, FLUX, QWEN_IMAGE, Z_IMAGE, Family
from tests.support.family_files import UNET, write_header

EIGHT_BITS = ("F8_E4M3", 1)
BFLOAT16 = ("BF16", 2)


def write_flux(path: Path, double: int = 19, single: int = 38) -> Model:
    """In 8 bits: so many of the UNet's 57 blocks, all of which are 11.1 GiB, and T5, 4.4 GiB."""
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
        depth=double,
        depth_single_blocks=single,
        axes_dim=[16, 56, 56],
        theta=10000,
        qkv_bias=True,
        guidance_embed=False,
    )
    text = hugging_face_clip("text_encoders.clip_l.transformer.text_model")
    text |= _below("text_encoders.t5xxl.transformer.", _t5())
    shapes = _below(UNET, network) | text | _below("vae.", _vae_of_16_channels())
    write_header(path, shapes, "", *EIGHT_BITS)
    return Model(FLUX.name, FLUX, {"checkpoint": path})


def write_cascade(folder: Path) -> Model:
    """In 16 bits: stage C, 6.7 GiB, with a text encoder of 1.3, and stage B, 2.9 GiB."""
    text = hugging_face_clip("text_encoder.clip_g.transformer.text_model", layers=32, width=1280)
    text["text_encoder.clip_g.text_projection"] = (1280, 1280)
    stage_c = _shapes("comfy.ldm.cascade.stage_c", "StageC")
    stage_b = _shapes(
        "comfy.ldm.cascade.stage_b",
        "StageB",
        c_hidden=[320, 640, 1280, 1280],
        nhead=[-1, -1, 20, 20],
        blocks=[[2, 6, 28, 6], [6, 28, 6, 2]],
        block_repeat=[[1, 1, 1, 1], [3, 3, 2, 2]],
    )
    with torch.device("meta"):
        stage_a: Any = import_module("comfy.ldm.cascade.stage_a").StageA()
    vae = {f"vae.{name}": tuple(value.shape) for name, value in stage_a.state_dict().items()}
    return _written(
        folder,
        CASCADE,
        {
            "stage_c": (_below(UNET, _as_in_files(stage_c)) | text, BFLOAT16),
            "stage_b": (_below(UNET, _as_in_files(stage_b)) | vae, BFLOAT16),
        },
    )


def write_qwen_image(folder: Path) -> Model:
    """In 8 bits: the network, 19.0 GiB, and the text encoder, 7.1; a VAE of 0.2 in 16."""
    network = _shapes("comfy.ldm.qwen_image.model", "QwenImageTransformer2DModel")
    text = _shapes("comfy.text_encoders.llama", "Qwen25_7BVLI", config_dict={}, dtype=None)
    with torch.device("meta"):
        vae: Any = import_module("comfy.ldm.wan.vae").WanVAE(
            dim=96, z_dim=16, temperal_downsample=[False, True, True]
        )
    decoder = {name: tuple(value.shape) for name, value in vae.state_dict().items()}
    return _written(
        folder,
        QWEN_IMAGE,
        {
            "diffusion_model": (network, EIGHT_BITS),
            "text_encoder": (text, EIGHT_BITS),
            "vae": (decoder, BFLOAT16),
        },
    )


def write_z_image(folder: Path) -> Model:
    """In 16 bits: the network, 11.5 GiB, the text encoder, 7.5, and a VAE of 0.2."""
    network = _shapes(
        "comfy.ldm.lumina.model",
        "NextDiT",
        patch_size=2,
        in_channels=16,
        dim=3840,
        cap_feat_dim=2560,
        n_layers=30,
        qk_norm=True,
        n_heads=30,
        n_kv_heads=30,
        axes_dims=[32, 48, 48],
        axes_lens=[1536, 512, 512],
        ffn_dim_multiplier=8.0 / 3.0,
        z_image_modulation=True,
        pad_tokens_multiple=32,
    )
    text = _shapes("comfy.text_encoders.llama", "Qwen3_4B", config_dict={}, dtype=None)
    return _written(
        folder,
        Z_IMAGE,
        {
            "diffusion_model": (network, BFLOAT16),
            "text_encoder": (text, BFLOAT16),
            "vae": (_vae_of_16_channels(), BFLOAT16),
        },
    )


def _written(
    folder: Path, family: Family, files: dict[str, tuple[Shapes, tuple[str, int]]]
) -> Model:
    paths = {title: folder / f"{family.name} {title}.safetensors" for title in files}
    for title, (shapes, dtype) in files.items():
        write_header(paths[title], shapes, "", *dtype)
    return Model(family.name, family, paths)


def _as_in_files(shapes: Shapes) -> Shapes:
    """Queries, keys and values are one tensor in Cascade's files."""
    files: Shapes = {}
    for name, shape in shapes.items():
        for end in ("weight", "bias"):
            name = name.replace(f"to_q.{end}", f"in_proj_{end}")
        is_joined = "in_proj_" in name
        if ".to_k." not in name and ".to_v." not in name:
            files[name] = (3 * shape[0], *shape[1:]) if is_joined else shape
    return files


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
