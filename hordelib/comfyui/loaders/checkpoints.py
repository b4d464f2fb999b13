"""Checkpoint files: UNet, text encoder and VAE in one, of which each is read by itself."""

from __future__ import annotations

from typing import Any

from hordelib.comfyui.loaders.diffusion_models import insist_on_family
from hordelib.comfyui.loaders.prediction import honour_v_prediction
from hordelib.comfyui.loaders.reading import reading
from hordelib.comfyui.loaders.vaes import insisting_on_numbers
from hordelib.comfyui.loaders.vocabularies import share_vocabulary
from hordelib.errors import ModelBroken
from hordelib.files.model_key import ModelKey


def load_checkpoint(key: ModelKey) -> Any:
    """ComfyUI's object of one part of a checkpoint (comfy.sd.load_checkpoint_guess_config).

    `key.variant` is one of CHECKPOINT_PARTS. Raises ModelBroken, naming the file, when it can't be
    read or has no such part.
    """
    import comfy.sd

    with reading(key.path):
        model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(
            str(key.path),
            output_model=key.variant == "unet",
            output_clip=key.variant == "text_encoder",
            output_vae=key.variant == "vae",
        )
    part = {"unet": model, "text_encoder": clip, "vae": vae}[key.variant]
    if part is None or getattr(part, "first_stage_model", part) is None:
        raise ModelBroken(
            f"{key.path.name} has no {_NAMES[key.variant]}: not a complete checkpoint"
        )
    if key.variant == "unet":
        insist_on_family(key.path.name, part)
        honour_v_prediction(key.path, part.model)
    if key.variant == "text_encoder":
        share_vocabulary(part.tokenizer)
    return insisting_on_numbers(part) if key.variant == "vae" else part


_NAMES = {"unet": "UNet", "text_encoder": "text encoder", "vae": "VAE"}
