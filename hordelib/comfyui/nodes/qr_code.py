"""DreamerQrCode: a job's QR code, in layers of the picture's size."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hordelib.job.params import QrCode
from hordelib.pictures.qr_code import DRAWERS, draw_layers

CENTRED = -1  # an offset that nobody asked for


class DreamerQrCode:
    """The whole code and its data's modules on grey, its patterns on white, and their mask."""

    CATEGORY = "dreamer"
    FUNCTION = "draw"
    RETURN_TYPES: ClassVar[tuple[str, ...]] = ("IMAGE", "IMAGE", "IMAGE", "MASK")
    RETURN_NAMES: ClassVar[tuple[str, ...]] = (
        "code",
        "data_modules",
        "function_modules",
        "function_mask",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "text": ("STRING", {}),
                "protocol": ("STRING", {}),
                "module_drawer": (list(DRAWERS),),
                "x_offset": ("INT", {"min": CENTRED}),
                "y_offset": ("INT", {"min": CENTRED}),
                "border": ("INT", {"min": 0}),
                "width": ("INT", {"min": 1}),
                "height": ("INT", {"min": 1}),
            }
        }

    def draw(
        self, width: int, height: int, x_offset: int, y_offset: int, **code: Any
    ) -> tuple[Tensor, ...]:
        """Pictures (1, height, width, 3) and a mask (1, height, width), 0 to 1."""
        wanted = QrCode(
            x_offset=None if x_offset == CENTRED else x_offset,
            y_offset=None if y_offset == CENTRED else y_offset,
            model=Path(),
            **code,
        )
        layers = draw_layers(wanted, width, height)
        pictures = (layers.code, layers.data, layers.function)
        return *(_picture(picture) for picture in pictures), _mask(layers.function_mask)


def _mask(picture: Image.Image) -> Tensor:
    return torch.tensor(np.asarray(picture), dtype=torch.float32).unsqueeze(0) / 255.0


def _picture(picture: Image.Image) -> Tensor:
    return _mask(picture).unsqueeze(-1).expand(-1, -1, -1, 3)
