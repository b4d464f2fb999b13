"""Circular padding: what leaves a picture at one edge comes in at the opposite one."""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import torch


class DreamerTiledModel:
    """A UNet whose convolutions read around the edges. The model that it came from stays as it is.

    ComfyUI applies the change when it loads the patched model, and takes it back before it loads
    another one of the same weights (ModelPatcher's object patches).
    """

    CATEGORY = "dreamer"
    FUNCTION = "tile"
    RETURN_TYPES: ClassVar[tuple[str, ...]] = ("MODEL",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"model": ("MODEL",)}}

    def tile(self, model: Any) -> tuple[Any]:
        return (circular(model),)


class DreamerTiledVae:
    """The same for a VAE."""

    CATEGORY = "dreamer"
    FUNCTION = "tile"
    RETURN_TYPES: ClassVar[tuple[str, ...]] = ("VAE",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"vae": ("VAE",)}}

    def tile(self, vae: Any) -> tuple[Any]:
        tiled = copy.copy(vae)
        tiled.patcher = circular(vae.patcher)
        return (tiled,)


def circular(patcher: Any) -> Any:
    """A clone of a ModelPatcher whose convolutions read around the edges."""
    patched = patcher.clone()
    for name, module in patched.model.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            patched.add_object_patch(f"{name}.padding_mode", "circular")
    return patched
