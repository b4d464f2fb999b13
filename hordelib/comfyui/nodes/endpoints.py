"""Where a graph meets the engine: models and source images come in, pictures go out in memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import comfy.utils
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hordelib.comfyui.nodes.context import HIDDEN_INPUT, RunContext, Wanted
from hordelib.errors import GenerationFailed
from hordelib.files.model_key import CHECKPOINT_PARTS, ModelKey
from hordelib.job.images import Picture, SourceImage


class DreamerCheckpoint:
    """CheckpointLoaderSimple without the loading: the engine has what is used of it on loan."""

    CATEGORY = "dreamer"
    FUNCTION = "take"
    RETURN_TYPES: ClassVar[tuple[str, ...]] = ("MODEL", "CLIP", "VAE")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"ckpt_name": ("STRING", {})}, "hidden": HIDDEN_INPUT}

    def take(self, ckpt_name: str, context: RunContext) -> tuple[Any, Any, Any]:
        path = Path(ckpt_name)
        parts = (
            context.models.get(ModelKey("checkpoint", path, part)) for part in CHECKPOINT_PARTS
        )
        model, clip, vae = parts
        return model, clip, vae


class DreamerImage:
    """LoadImage without the file: one of the job's source images.

    `digest` tells ComfyUI whether it is the image of the run before.
    """

    CATEGORY = "dreamer"
    FUNCTION = "take"
    RETURN_TYPES: ClassVar[tuple[str, ...]] = ("IMAGE", "MASK")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"name": ("STRING", {}), "digest": ("STRING", {})},
            "hidden": HIDDEN_INPUT,
        }

    def take(self, name: str, digest: str, context: RunContext) -> tuple[Tensor, Tensor]:
        """Pixels (1, height, width, 3) and mask (1, height, width), 0 to 1.

        The mask is what LoadImage gives, 1 where the image is transparent; of an image of mode L
        it is the image itself.
        """
        return _tensors(context.images[name])


class DreamerSources:
    """The source images of jobs that share a batch, each stretched as ImageScale does.

    `pictures` is a JSON list of the name, the digest and the number of images of each job.
    """

    CATEGORY = "dreamer"
    FUNCTION = "take"
    RETURN_TYPES: ClassVar[tuple[str, ...]] = ("IMAGE",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        size = {"width": ("INT", {"min": 1}), "height": ("INT", {"min": 1})}
        return {"required": {"pictures": ("STRING", {}), **size}, "hidden": HIDDEN_INPUT}

    def take(self, pictures: str, width: int, height: int, context: RunContext) -> tuple[Tensor]:
        """Pixels (images of all jobs, height, width, 3), 0 to 1."""
        found = [
            _stretched(_tensors(context.images[name])[0], width, height).repeat(images, 1, 1, 1)
            for name, _digest, images in json.loads(pictures)
        ]
        return (torch.cat(found),)


class DreamerRepeatImages:
    """RepeatImageBatch; ComfyUI's own is in a module that needs its web server."""

    CATEGORY = "dreamer"
    FUNCTION = "repeat"
    RETURN_TYPES: ClassVar[tuple[str, ...]] = ("IMAGE",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"image": ("IMAGE",), "amount": ("INT", {"min": 1})}}

    def repeat(self, image: Tensor, amount: int) -> tuple[Tensor]:
        """(batch, height, width, channels) to (batch * amount, height, width, channels)."""
        return (image.repeat(amount, 1, 1, 1),)


def _stretched(pixels: Tensor, width: int, height: int) -> Tensor:
    scaled = comfy.utils.common_upscale(pixels.movedim(-1, 1), width, height, "lanczos", "disabled")
    return scaled.movedim(1, -1)


def _tensors(image: SourceImage) -> tuple[Tensor, Tensor]:
    """Pixels (1, height, width, 3) and mask (1, height, width), as DreamerImage gives them."""
    array = np.frombuffer(image.pixels, np.uint8).astype(np.float32) / 255.0
    values = torch.tensor(array).reshape(1, image.height, image.width, len(image.mode))
    if image.mode == "L":
        return values.expand(-1, -1, -1, 3), values[..., 0]
    opaque = values[..., 3] if image.mode == "RGBA" else torch.ones_like(values[..., 0])
    return values[..., :3], 1.0 - opaque


class DreamerOutput:
    """SaveImage without the file: pixels become pictures in memory, rounded as it does.

    This is where a picture gets to know whose it is.
    """

    CATEGORY = "dreamer"
    FUNCTION = "hand_over"
    RETURN_TYPES: ClassVar[tuple[str, ...]] = ()
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"images": ("IMAGE",), "filename_prefix": ("STRING", {})},
            "hidden": HIDDEN_INPUT,
        }

    @classmethod
    def IS_CHANGED(cls, **_inputs: Any) -> float:
        return float("nan")  # never equal to itself: runs although the same pictures came before

    def hand_over(self, images: Tensor, context: RunContext, **_inputs: Any) -> dict[str, Any]:
        """`images` is (batch, height, width, 3 or 4), 0 to 1, in the order of what is wanted.

        Raises GenerationFailed where their number is another: nobody could say whose they are.
        """
        if len(images) != len(context.wanted):
            raise GenerationFailed(
                f"the graph gave {len(images)} images, and {len(context.wanted)} are wanted"
            )
        pairs = zip(context.wanted, images.cpu().numpy(), strict=True)
        context.pictures.extend(_picture(wanted, image) for wanted, image in pairs)
        return {}


def _picture(wanted: Wanted, image: NDArray[np.float32]) -> Picture:
    pixels = np.clip(255.0 * image, 0, 255).astype(np.uint8)
    height, width, channels = pixels.shape
    return Picture(
        width,
        height,
        pixels.tobytes(),
        wanted.seed,
        mode="RGB" if channels == 3 else "RGBA",
        job_id=wanted.job_id,
        index=wanted.index,
    )
