"""Upscaling as ComfyUI does it, with models of the cache, progress, and a way to stop it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import comfy.model_management
import comfy.utils
import torch
import torch.nn.functional as F
from torch import Tensor

from hordelib.comfyui.device_faults import memory_errors_named
from hordelib.comfyui.loaders.image_networks import Upscaler, bring
from hordelib.comfyui.nodes.context import HIDDEN_INPUT, RunContext
from hordelib.files.model_key import ModelKey

# It brings in spandrel_extra_arches, whose torch.jit.script makes torch warn the whole program.
with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)
    from comfy_extras.nodes_upscale_model import ImageUpscaleWithModel

TILE, OVERLAP = 512, 32  # pixels; ComfyUI's own


class DreamerUpscaleModel:
    """UpscaleModelLoader without the loading: the engine has the file on loan."""

    CATEGORY = "dreamer"
    FUNCTION = "take"
    RETURN_TYPES: ClassVar[tuple[str, ...]] = ("UPSCALE_MODEL",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"model_name": ("STRING", {})}, "hidden": HIDDEN_INPUT}

    def take(self, model_name: str, context: RunContext) -> tuple[Upscaler]:
        return (context.models[ModelKey("upscaler", Path(model_name))],)


class DreamerUpscale:
    """ImageUpscaleWithModel: in tiles, smaller ones where memory runs out.

    An opacity channel is enlarged beside the colours.
    """

    CATEGORY = "dreamer"
    FUNCTION = "upscale"
    RETURN_TYPES: ClassVar[tuple[str, ...]] = ("IMAGE",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"upscale_model": ("UPSCALE_MODEL",), "image": ("IMAGE",)},
            "hidden": HIDDEN_INPUT,
        }

    def upscale(self, upscale_model: Upscaler, image: Tensor, context: RunContext) -> tuple[Tensor]:
        """`image` is (batch, height, width, 3 or 4), 0 to 1."""
        images, height, width, _ = image.shape
        side = context.tile_side(upscale_model, TILE)
        tiles = images * comfy.utils.get_tiled_scale_steps(width, height, side, side, OVERLAP)
        colours, opacity = image[..., :3], image[..., 3:]
        watched = _Watched(upscale_model, context, side, tiles)
        (enlarged,) = ImageUpscaleWithModel.execute(watched, colours).args
        return (torch.cat((enlarged, _stretched(opacity, enlarged)), -1),)


@dataclass(slots=True)
class _Watched:
    """What ImageUpscaleWithModel takes for a model: tells of each tile, and stops between two."""

    upscaler: Upscaler
    context: RunContext
    side: int  # of the largest tile that there is room for
    tiles: int
    done: int = 0

    @property
    def model(self) -> Any:
        return self.upscaler.model

    @property
    def patcher(self) -> Any:
        """What 0.33.0 brings to the device, where 0.3.75 calls `to`."""
        return self.upscaler.patcher

    @property
    def scale(self) -> int:
        return self.upscaler.scale

    def to(self, device: Any) -> None:
        """To the device; where it goes afterwards is the cache's business."""
        if torch.device(device) == comfy.model_management.get_torch_device():
            bring(self.upscaler.patcher)

    def __call__(self, tile: Tensor) -> Tensor:
        if self.context.cancelled.is_set():
            raise comfy.model_management.InterruptProcessingException
        if max(tile.shape[-2:]) > self.side:  # ComfyUI then takes tiles of half the size
            raise comfy.model_management.OOM_EXCEPTION(f"no room for tiles over {self.side} pixels")
        with memory_errors_named():
            enlarged = self.upscaler(tile)
        self.done += 1
        self.context.on_step(self.done, max(self.done, self.tiles))
        return enlarged


def _stretched(channels: Tensor, like: Tensor) -> Tensor:
    """(batch, height, width, any) to the height and width of `like`."""
    if channels.shape[-1] == 0:
        return like[..., :0]
    size = like.shape[1:3]
    stretched = F.interpolate(channels.movedim(-1, 1), size, mode="bicubic", align_corners=False)
    return stretched.movedim(1, -1).clamp(0, 1)
