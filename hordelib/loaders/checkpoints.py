"""Checkpoint files: UNet, text encoder and VAE in one."""

from __future__ import annotations

from hordelib.device_faults import device_trouble, first_line
from hordelib.errors import ModelBroken
from hordelib.loaders.diffusion_models import insist_on_family
from hordelib.model_cache import ModelKey
from hordelib.nodes.context import Checkpoint


def load_checkpoint(key: ModelKey) -> Checkpoint:
    """Read a whole checkpoint (comfy.sd.load_checkpoint_guess_config).

    Raises ModelBroken, naming the file, when it can't be read or has no UNet, text encoder or VAE.
    """
    import comfy.sd

    path = key.path
    try:
        model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(str(path))
    except Exception as error:
        known = device_trouble("loading the model", error)
        raise known or ModelBroken(f"{path.name} can't be loaded: {first_line(error)}") from error
    parts = {"UNet": model, "text encoder": clip, "VAE": getattr(vae, "first_stage_model", None)}
    for part, loaded in parts.items():
        if loaded is None:
            raise ModelBroken(f"{path.name} has no {part}: not a complete checkpoint")
    insist_on_family(path.name, model)
    return Checkpoint(model, clip, vae)
