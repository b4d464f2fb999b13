"""Control maps, and the ControlNets that follow them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from comfy.controlnet import T2IAdapter
from torch import Tensor

from hordelib.comfyui.loaders.image_networks import bring
from hordelib.comfyui.nodes.context import HIDDEN_INPUT, RunContext
from hordelib.errors import AuxiliaryBroken
from hordelib.files.model_key import ModelKey
from hordelib.job.control_types import ControlType
from hordelib.job.params import SEEDS
from hordelib.pictures.annotators import draw_at_size
from hordelib.pictures.plain_maps import PLAIN, SEEDED, Draw

TEXT: tuple[str, dict[str, Any]] = ("STRING", {})


class DreamerPlainMap:
    """The control map of a type that needs no weights."""

    CATEGORY = "dreamer"
    FUNCTION = "draw"
    RETURN_TYPES: ClassVar[tuple[str, ...]] = ("IMAGE",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"image": ("IMAGE",), "control_type": TEXT}}

    def draw(self, image: Tensor, control_type: str) -> tuple[Tensor]:
        return (_map_of(image, PLAIN[ControlType(control_type)]),)


class DreamerSeededMaps:
    """The control maps of a type that draws another one for each seed: map i is of seed + i."""

    CATEGORY = "dreamer"
    FUNCTION = "draw"
    RETURN_TYPES: ClassVar[tuple[str, ...]] = ("IMAGE",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        seeds = {"seed": ("INT", {"min": 0, "max": SEEDS - 1}), "images": ("INT", {"min": 1})}
        return {"required": {"image": ("IMAGE",), "control_type": TEXT, **seeds}}

    def draw(self, image: Tensor, control_type: str, seed: int, images: int) -> tuple[Tensor]:
        draw = SEEDED[ControlType(control_type)]
        seeds = [(seed + i) % SEEDS for i in range(images)]
        return (torch.cat([_map_of(image, partial(draw, each)) for each in seeds]),)


class DreamerAnnotator:
    """The control map of a type whose network the engine has on loan."""

    CATEGORY = "dreamer"
    FUNCTION = "draw"
    RETURN_TYPES: ClassVar[tuple[str, ...]] = ("IMAGE",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        required = {"image": ("IMAGE",), "control_type": TEXT, "weights": TEXT}
        return {"required": required, "hidden": HIDDEN_INPUT}

    def draw(
        self, image: Tensor, control_type: str, weights: str, context: RunContext
    ) -> tuple[Tensor]:
        annotator = context.models[ModelKey("annotator", Path(weights), control_type)]
        bring(annotator.patcher)
        return (_map_of(image, annotator.draw),)


class DreamerControlNet:
    """DiffControlNetLoader without the loading: the engine has the ControlNet on loan.

    `base` is the checkpoint that a ControlNet of differences was added to, else empty. Such a one
    gets the LoRAs of `model` too, so that it stays a copy of the encoder that it steers.
    """

    CATEGORY = "dreamer"
    FUNCTION = "take"
    RETURN_TYPES: ClassVar[tuple[str, ...]] = ("CONTROL_NET",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        required = {"model": ("MODEL",), "control_net_name": TEXT, "base": TEXT}
        return {"required": required, "hidden": HIDDEN_INPUT}

    def take(self, model: Any, control_net_name: str, base: str, context: RunContext) -> tuple[Any]:
        path = Path(control_net_name)
        control_net = context.models[ModelKey("control_net", path, base)]
        if isinstance(control_net, T2IAdapter):
            _insist_on_same("channels", path, control_net.t2i_model.channels[0], _channels(model))
            return (control_net,)
        reads, has = _context_width(control_net.control_model), _context_width(model.model)
        _insist_on_same("a text width", path, reads, has)
        return (_patched_like(control_net, model) if base else control_net,)


def _map_of(image: Tensor, draw: Draw) -> Tensor:
    """(batch, height, width, 3), 0 to 1, to the same of the maps."""
    pictures = np.clip(255.0 * image.cpu().numpy(), 0, 255).round().astype(np.uint8)
    maps = np.stack([draw_at_size(draw, picture) for picture in pictures])
    return torch.as_tensor(maps.astype(np.float32) / 255.0)


def _insist_on_same(what: str, path: Path, wants: int, has: int) -> None:
    if wants != has:
        told = f"{path.name} is for models with {what} of {wants}, and the job's has {has}"
        raise AuxiliaryBroken(path, told)


def _channels(model: Any) -> int:
    """Of the UNet's first layer, which all others are multiples of."""
    return model.model.model_config.unet_config["model_channels"]


def _context_width(network: Any) -> int:
    """How wide the text is that the network's cross attention reads: tells the families apart."""
    names = (name for name, _ in network.named_modules() if name.endswith(".attn2.to_k"))
    return network.get_submodule(next(names)).in_features


def _patched_like(control_net: Any, model: Any) -> Any:
    """A copy with the model's patches; its weights are shared, and patched while it is in use."""
    copy = control_net.copy()
    patcher = copy.control_model_wrapped.clone()
    own = set(patcher.model_state_dict())
    patcher.patches = {
        name: list(patches)
        for key, patches in model.patches.items()
        if (name := key.removeprefix("diffusion_model.")) in own
    }
    patcher.patches_uuid = model.patches_uuid
    copy.control_model_wrapped = patcher
    return copy
