"""Diffusion models alone in a file, as Qwen-Image and Z-Image come."""

from __future__ import annotations

from typing import Any

from hordelib.comfyui.loaders.reading import reading
from hordelib.errors import ModelBroken
from hordelib.files.model_key import ModelKey
from hordelib.job.families import FAMILIES


def load_diffusion_model(key: ModelKey) -> Any:
    """ComfyUI's ModelPatcher of the file (comfy.sd.load_diffusion_model).

    Raises ModelBroken, naming the file, when it can't be read or is of a family that isn't served.
    """
    import comfy.sd

    with reading(key.path):
        model = comfy.sd.load_diffusion_model(str(key.path))
    insist_on_family(key.path.name, model)
    return model


def insist_on_family(name: str, model: Any) -> None:
    """Raise ModelBroken for a model that no spine of ours is made for."""
    found = type(model.model).__name__
    if not any(found in family.comfy_classes for family in FAMILIES.values()):
        raise ModelBroken(f"{name} is a {found} model: served are {', '.join(FAMILIES)}")
