"""Files of ControlNets and T2I-Adapters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hordelib.comfyui.loaders.reading import reading
from hordelib.errors import ModelBroken
from hordelib.files.model_key import ModelKey
from hordelib.job.control_types import DIFFERENCE

CONTROL_MODEL, BASE_MODEL = "control_model.", "model.diffusion_model."
# How files are called whose outputs are averaged over the picture, so that no place is steered.
_AVERAGED = ("_shuffle", "_shuffle_fp16")
_ADAPTER = "body.0.in_conv.weight"  # only a small T2I-Adapter has it
_ADAPTER_STAGES, _ADAPTER_BLOCKS = 4, 4
_LATENT_SCALE = 8  # pixels of the picture for one of the latent


def load_control_net(key: ModelKey) -> Any:
    """Read a ControlNet (comfy.controlnet.load_controlnet), or a small T2I-Adapter.

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
        if _ADAPTER in weights:
            return _adapter(weights)
        control_net = comfy.controlnet.load_controlnet_state_dict(
            weights, model_options={"global_average_pooling": key.path.stem.endswith(_AVERAGED)}
        )
    if type(control_net) is not comfy.controlnet.ControlNet:
        raise ModelBroken(f"{key.path.name} is no ControlNet")
    return control_net


def _adapter(weights: dict[str, Any]) -> Any:
    """A small T2I-Adapter (comfy.controlnet.load_t2i_adapter), of any width."""
    from comfy.controlnet import T2IAdapter
    from comfy.t2i_adapter.adapter import Adapter_light

    widths = [weights[f"body.{i}.out_conv.weight"].shape[0] for i in range(_ADAPTER_STAGES)]
    network = Adapter_light(widths, _ADAPTER_BLOCKS, weights[_ADAPTER].shape[1])
    network.load_state_dict(weights)
    return T2IAdapter(network, network.input_channels, _LATENT_SCALE, "nearest-exact")


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
