"""Where a graph meets the engine: models come in from the cache, pictures go out in memory."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from hordelib.nodes.context import HIDDEN_INPUT, RunContext


class DreamerCheckpoint:
    """CheckpointLoaderSimple without the loading: the engine has the checkpoint on loan."""

    CATEGORY = "dreamer"
    FUNCTION = "take"
    RETURN_TYPES: ClassVar[tuple[str, ...]] = ("MODEL", "CLIP", "VAE")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"ckpt_name": ("STRING", {})}, "hidden": HIDDEN_INPUT}

    def take(self, ckpt_name: str, context: RunContext) -> tuple[Any, Any, Any]:
        checkpoint = context.checkpoints[ckpt_name]
        return checkpoint.model, checkpoint.clip, checkpoint.vae


class DreamerOutput:
    """SaveImage without the file: pixels go to the engine as 8-bit arrays, rounded as it does."""

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
        """`images` is (batch, height, width, 3), 0 to 1."""
        for image in images.cpu().numpy():
            context.pixels.append(np.clip(255.0 * image, 0, 255).astype(np.uint8))
        return {}
