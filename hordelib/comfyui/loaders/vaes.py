"""VAEs alone in a file."""

from __future__ import annotations

from typing import Any

from hordelib.comfyui.loaders.reading import reading
from hordelib.files.model_key import ModelKey
from hordelib.pictures.finite import watched


def load_vae(key: ModelKey) -> Any:
    """ComfyUI's VAE object of the file. Raises ModelBroken, naming it, when it is none."""
    import comfy.sd
    import comfy.utils

    with reading(key.path):
        vae = comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(key.path)))
        vae.throw_exception_if_invalid()
    return insisting_on_numbers(vae)


def insisting_on_numbers(vae: Any) -> Any:
    """The same VAE, which raises NotNumbers where ComfyUI would clamp an infinity to white."""
    vae.process_output = watched(vae.process_output, "the VAE")
    return vae
