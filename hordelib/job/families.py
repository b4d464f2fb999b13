"""Model families: what sets one apart from the other, a row each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from hordelib.graph import Link


class Part(StrEnum):
    """What a job may ask for that not every family can do, by the horde's names."""

    hires_fix = "hires_fix"
    clip_skip = "clip_skip"
    tiling = "tiling"
    flow_shift = "flow_shift"
    lora = "loras"
    ti = "tis"
    control = "control_type"
    qr_code = "workflow qr_code"
    remix = "remix"
    transparent = "transparent"


@dataclass(frozen=True, slots=True)
class Loader:
    """A loader node of a spine, and the file that it reads."""

    title: str
    file_type: str = ""  # the model reference's, where a model has several files
    folder: str = ""  # seen from the folder of the model's main file
    file: str = ""  # the reference's name; the main file is called as its model is


_MODEL, _CLIP, _VAE = Link("checkpoint", 0), Link("checkpoint", 1), Link("checkpoint", 2)


@dataclass(frozen=True, slots=True)
class Family:
    """One row of the table below.

    Nothing of a source has to be listed in `serves`: image to image and repainting work on every
    latent.
    """

    name: str  # the horde's baseline
    spine: str  # the graph's file in comfy_workflows
    native_side: int  # pixels; the picture size that it was trained on
    comfy_classes: frozenset[str]  # ComfyUI's classes of the loaded UNets
    serves: frozenset[Part]
    loaders: tuple[Loader, ...] = (Loader("checkpoint"),)  # the first one's is the main file
    model: Link = _MODEL  # where the spine has the UNet,
    clip: Link = _CLIP  # the text encoder,
    vae: Link = _VAE  # and the VAE that decodes
    joins_prompts: bool = True  # cross attention: repeated tokens change nothing
    is_guided: bool = False  # distilled: the guidance is an input; there is no negative prompt
    channels: frozenset[int] = frozenset({4})  # that its UNets may read; where not known, 4
    is_flow: bool = False  # its noise levels go from 1 to 0 (ComfyUI's CONST)
    noise_table: str = ""  # of AlignYourSteps; gits is known to suit the same families
    least_flow_shift: float = 0.0  # the least that leaves noise levels above 0
    least_comfyui: tuple[int, ...] = (0, 3, 75)  # the first version that knows its UNet


_STABLE_DIFFUSION = frozenset(
    {Part.hires_fix, Part.clip_skip, Part.tiling, Part.lora, Part.ti, Part.control}
)

_ROWS = (
    Family(
        "stable diffusion 1",
        "stable_diffusion.json",
        512,
        frozenset({"BaseModel", "SD15_instructpix2pix"}),
        _STABLE_DIFFUSION | {Part.qr_code, Part.transparent},
        channels=frozenset({4, 8, 9}),
        noise_table="SD1",
    ),
    Family(
        "stable diffusion 2",
        "stable_diffusion.json",
        512,
        frozenset({"BaseModel"}),
        _STABLE_DIFFUSION - {Part.control},
        channels=frozenset({4, 9}),
    ),
    Family(
        "stable_diffusion_xl",
        "stable_diffusion.json",
        1024,
        frozenset({"SDXL", "SDXL_instructpix2pix"}),
        _STABLE_DIFFUSION - {Part.control} | {Part.qr_code, Part.transparent},
        channels=frozenset({4, 8, 9}),
        noise_table="SDXL",
    ),
    Family(
        "stable_cascade",
        "stable_cascade.json",
        1024,
        frozenset({"StableCascade_C", "StableCascade_B"}),
        frozenset({Part.hires_fix, Part.clip_skip, Part.lora, Part.remix}),
        (
            Loader("stage_c", "stable_cascade_stage_c", "", "stable_cascade_stage_c.safetensors"),
            Loader("stage_b", "stable_cascade_stage_b", "", "stable_cascade_stage_b.safetensors"),
        ),
        Link("stage_c", 0),
        Link("stage_c", 1),
        Link("stage_b", 2),
        joins_prompts=False,
    ),
    Family(
        "flux_1",
        "flux.json",
        1024,
        frozenset({"Flux"}),
        frozenset({Part.lora, Part.flow_shift}),
        joins_prompts=False,
        is_flow=True,
    ),
    Family(
        "flux_dev",
        "flux.json",
        1024,
        frozenset({"Flux"}),
        frozenset({Part.lora, Part.flow_shift}),
        joins_prompts=False,
        is_flow=True,
        is_guided=True,
    ),
    Family(
        "qwen_image",
        "qwen_image.json",
        1328,
        frozenset({"QwenImage"}),
        frozenset({Part.lora, Part.flow_shift}),
        (
            Loader("diffusion_model", "unet", "", "qwen_image_fp8_e4m3fn.safetensors"),
            Loader(
                "text_encoder",
                "text_encoders",
                "../text_encoders",
                "qwen_2.5_vl_7b_fp8_scaled.safetensors",
            ),
            Loader("vae", "vae", "../vae", "qwen_image_vae.safetensors"),
        ),
        Link("diffusion_model", 0),
        Link("text_encoder", 0),
        Link("vae", 0),
        joins_prompts=False,
        is_flow=True,
        least_flow_shift=0.01,
    ),
    Family(
        "z_image_turbo",
        "z_image.json",
        1024,
        frozenset({"Lumina2"}),
        frozenset({Part.lora}),
        (
            Loader("diffusion_model", "unet", "", "z_image_turbo_bf16.safetensors"),
            Loader("text_encoder", "text_encoders", "../text_encoders", "qwen_3_4b.safetensors"),
            Loader("vae", "vae", "../vae", "ae.safetensors"),
        ),
        Link("diffusion_model", 0),
        Link("text_encoder", 0),
        Link("vae", 0),
        joins_prompts=False,
        is_flow=True,
    ),
    Family(
        "krea2_turbo",
        "krea2.json",
        1024,
        frozenset({"Krea2"}),
        frozenset(),
        (
            Loader("diffusion_model", "unet", "", "krea2_turbo_fp8_scaled.safetensors"),
            Loader(
                "text_encoder",
                "text_encoders",
                "../text_encoders",
                "qwen3vl_4b_fp8_scaled.safetensors",
            ),
            Loader("vae", "vae", "../vae", "qwen_image_vae.safetensors"),
        ),
        Link("diffusion_model", 0),
        Link("text_encoder", 0),
        Link("vae", 0),
        joins_prompts=False,
        is_flow=True,
        least_comfyui=(0, 33, 0),
    ),
    Family(
        "anima",
        "anima.json",
        1024,
        frozenset({"Anima"}),
        frozenset(),
        (
            Loader("diffusion_model", "unet", "", "anima-base-v1.0.safetensors"),
            Loader(
                "text_encoder",
                "text_encoders",
                "../text_encoders",
                "qwen_3_06b_base.safetensors",
            ),
            Loader("vae", "vae", "../vae", "qwen_image_vae.safetensors"),
        ),
        Link("diffusion_model", 0),
        Link("text_encoder", 0),
        Link("vae", 0),
        joins_prompts=False,
        is_flow=True,
        least_comfyui=(0, 33, 0),
    ),
)
FAMILIES = {row.name: row for row in _ROWS}
SD1, SD2, SDXL, CASCADE, FLUX, FLUX_DEV, QWEN_IMAGE, Z_IMAGE, KREA2, ANIMA = _ROWS


# Spellings seen in configurations and references → the horde's own name of the model family.
BASELINES: Mapping[str, str] = MappingProxyType(
    {
        "stable diffusion 1": "stable diffusion 1",
        "stable_diffusion_1": "stable diffusion 1",
        "stable diffusion 2": "stable diffusion 2",
        "stable_diffusion_2": "stable diffusion 2",
        "stable_diffusion_2_512": "stable diffusion 2",
        "stable_diffusion_2_768": "stable diffusion 2",
        "stable diffusion xl": "stable_diffusion_xl",
        "stable_diffusion_xl": "stable_diffusion_xl",
        "stable_cascade": "stable_cascade",
        "flux_1": "flux_1",
        "flux_schnell": "flux_1",
        "flux_dev": "flux_dev",
        "qwen_image": "qwen_image",
        "z_image_turbo": "z_image_turbo",
        "krea2_turbo": "krea2_turbo",
        "anima": "anima",
    }
)
