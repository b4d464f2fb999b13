"""ControlNet files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hordelib.comfyui.loaders.reading import reading
from hordelib.errors import ModelBroken
from hordelib.files.model_key import ModelKey
from hordelib.job.control_types import DIFFERENCE

CONTROL_MODEL, BASE_MODEL = "control_model.", "model.diffusion_model."


def load_control_net(key: ModelKey) -> Any:
    """Read a ControlNet (comfy.controlnet.load_controlnet).

    One of differences is added to the checkpoint `key.variant` first: it then is a copy of that
    model's own encoder, which is how its author meant it. The checkpoint's file is read rather than
    a model in memory, which may have a LoRA applied. Raises ModelBroken, naming the file.
    """
    import comfy.controlnet

    with reading(key.path):
        weights = _read(key.path)
    if "difference" in weights:
        weights = _added(weights, key)
    with reading(key.path):
        control_net = comfy.controlnet.load_controlnet_state_dict(weights)
    if type(control_net) is not comfy.controlnet.ControlNet:
        raise ModelBroken(f"{key.path.name} is no ControlNet")
    return control_net


def _read(path: Path) -> dict[str, Any]:
    import comfy.utils

    return comfy.utils.load_torch_file(str(path))


def _added(differences: dict[str, Any], key: ModelKey) -> dict[str, Any]:
    """The ControlNet's own weights: those of the base model and the differences to it."""
    if not key.variant:
        name = key.path.name
        raise ModelBroken(
            f"{name} holds differences to a base model: rename it to {DIFFERENCE}{name}"
        )
    checkpoint = Path(key.variant)
    with reading(checkpoint):
        base = _read(checkpoint)
    return {
        name: _sum(value, base.get(BASE_MODEL + name.removeprefix(CONTROL_MODEL)))
        for name, value in differences.items()
        if name != "difference"
    }


def _sum(difference: Any, base: Any) -> Any:
    if base is None:
        return difference
    return (difference.float() + base.float()).to(difference.dtype)
