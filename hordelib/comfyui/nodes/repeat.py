"""DreamerRepeatImages: one picture as often as a batch has images."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor


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
