"""Names and shapes of the weights of Stable Diffusion checkpoints, as ComfyUI's own classes have
them; nothing has memory. ComfyUI has to be importable."""

from __future__ import annotations

from typing import Any

import torch

Shapes = dict[str, tuple[int, ...]]


def sd1() -> Shapes:
    """Stable Diffusion 1.5: 2.0 GiB in 16 bits."""
    network = unet(
        num_heads=8,
        context_dim=768,
        num_res_blocks=[2, 2, 2, 2],
        channel_mult=[1, 2, 4, 4],
        transformer_depth=[1, 1, 1, 1, 1, 1, 0, 0],
        transformer_depth_output=[1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
        transformer_depth_middle=1,
    )
    return network | hugging_face_clip("cond_stage_model.transformer.text_model") | _vae()


def sdxl() -> Shapes:
    """Stable Diffusion XL: 6.5 GiB in 16 bits."""
    network = unet(
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
    small = hugging_face_clip("conditioner.embedders.0.transformer.text_model")
    large = open_clip("conditioner.embedders.1.model", layers=32, width=1280)
    return network | small | large | _vae()


def unet(**settings: Any) -> Shapes:
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


def kl_vae() -> Shapes:
    """The VAE of all Stable Diffusion models."""
    from comfy.ldm.models.autoencoder import AutoencoderKL

    sizes = {"z_channels": 4, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": 128}
    shape = {"ch_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_resolutions": [], "dropout": 0.0}
    with torch.device("meta"):
        network: torch.nn.Module = AutoencoderKL(
            ddconfig={"double_z": True, **sizes, **shape}, embed_dim=4
        )
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}


def open_clip(prefix: str, *, layers: int, width: int) -> Shapes:
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


def hugging_face_clip(prefix: str, layers: int = 12, width: int = 768) -> Shapes:
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


def _vae() -> Shapes:
    return {f"first_stage_model.{name}": shape for name, shape in kl_vae().items()}
