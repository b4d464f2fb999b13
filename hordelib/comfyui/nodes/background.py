"""DreamerStripBackground: everything but the subject becomes transparent."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import comfy.model_management
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from hordelib.comfyui.loaders.image_networks import SubjectFinder
from hordelib.comfyui.nodes.context import HIDDEN_INPUT, RunContext
from hordelib.files.model_key import ModelKey
from hordelib.memory.loans import lend
from hordelib.pictures.matting import closed_form_alpha, subject_colours, trimap

# Edges are found at this size at most: the subject's mask has 320 pixels a side to begin with, and
# time and memory grow with the area.
MATTING_SIDE = 1024
# Where more of the picture than this is open, the network saw no subject that edges could be of.
MOSTLY_OPEN = 0.5


class DreamerStripBackground:
    """A picture that is transparent in parts already has no background, and stays as it is."""

    CATEGORY = "dreamer"
    FUNCTION = "strip"
    RETURN_TYPES: ClassVar[tuple[str, ...]] = ("IMAGE",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"image": ("IMAGE",), "model_name": ("STRING", {})},
            "hidden": HIDDEN_INPUT,
        }

    def strip(self, image: Tensor, model_name: str, context: RunContext) -> tuple[Tensor]:
        """(batch, height, width, 3 or 4), 0 to 1, to the same with 4 channels."""
        if image.shape[-1] == 4:
            return (image,)
        finder: SubjectFinder = context.models[ModelKey("background", Path(model_name))]
        lend(finder)
        stripped: list[Tensor] = []
        for picture in image.cpu():
            if context.cancelled.is_set():
                raise comfy.model_management.InterruptProcessingException
            stripped.append(_strip_one(finder, picture))
            context.on_step(len(stripped), len(image))
        return (torch.stack(stripped),)


def _strip_one(finder: SubjectFinder, picture: Tensor) -> Tensor:
    """(height, width, 3) to (height, width, 4)."""
    colours = picture.float().movedim(-1, 0)[None]
    alpha = _enlarged(_alpha(finder, _for_matting(picture)), colours)
    subject = subject_colours(colours, alpha)
    return torch.cat((subject, alpha), 1)[0].movedim(0, -1)


def _alpha(finder: SubjectFinder, image: Image.Image) -> Tensor:
    """(1, 1, height, width) of the image's size."""
    mask = finder.find(image)
    known = trimap(mask)
    is_found = (known == 0.5).mean() < MOSTLY_OPEN
    alpha = closed_form_alpha(np.asarray(image) / 255, known) if is_found else mask / 255
    return torch.tensor(alpha, dtype=torch.float32)[None, None]


def _for_matting(picture: Tensor) -> Image.Image:
    image = Image.fromarray((picture * 255).round().clamp(0, 255).byte().numpy())
    image.thumbnail((MATTING_SIDE, MATTING_SIDE), Image.Resampling.LANCZOS)
    return image


def _enlarged(alpha: Tensor, like: Tensor) -> Tensor:
    if alpha.shape[-2:] == like.shape[-2:]:
        return alpha
    size = like.shape[-2:]
    return F.interpolate(alpha, size, mode="bicubic", align_corners=False).clamp(0, 1)
