"""Image encoders inside a checkpoint, as Stable Cascade's stage C has one for remixing."""

from __future__ import annotations

from typing import Any

from hordelib.comfyui.loaders.reading import reading
from hordelib.errors import ModelBroken
from hordelib.files.model_key import ModelKey


def load_clip_vision(key: ModelKey) -> Any:
    """ComfyUI's CLIP vision object of a checkpoint; nothing else of the file is read into memory.

    Raises ModelBroken, naming the file, when it can't be read or has no image encoder.
    """
    import comfy.sd

    with reading(key.path):
        *_, vision = comfy.sd.load_checkpoint_guess_config(
            str(key.path),
            output_vae=False,
            output_clip=False,
            output_clipvision=True,
            output_model=False,
        )
    if vision is None:
        raise ModelBroken(f"{key.path.name} has no image encoder: it can't remix pictures")
    return vision
