"""What is said of pictures in words and numbers: answers go to the engine in memory."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image
from torch import Tensor

from hordelib.comfyui.loaders.image_networks import bring
from hordelib.comfyui.loaders.picture_readers import PictureReader
from hordelib.comfyui.nodes.context import HIDDEN_INPUT, RunContext
from hordelib.errors import OutOfMemory
from hordelib.files.model_key import ModelKey
from hordelib.job.images import SourceImage

log = logging.getLogger(__name__)

READER = "PICTURE_READER"
TEXT: tuple[str, dict[str, Any]] = ("STRING", {})


class DreamerPictureReader:
    """A reader that the engine has on loan: BLIP, CLIP, our word lists, or the aesthetic head."""

    CATEGORY = "dreamer"
    FUNCTION = "take"
    RETURN_TYPES: ClassVar[tuple[str, ...]] = (READER,)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"weights": TEXT, "reader": TEXT}, "hidden": HIDDEN_INPUT}

    def take(self, weights: str, reader: str, context: RunContext) -> tuple[PictureReader]:
        return (context.models[ModelKey("picture_reader", Path(weights), reader)],)


class _Asking:
    """What the nodes below have in common: they run although the same pictures came before."""

    CATEGORY = "dreamer"
    FUNCTION = "ask"

    @classmethod
    def IS_CHANGED(cls, **_inputs: Any) -> float:
        return float("nan")  # never equal to itself


class DreamerCaption(_Asking):
    """A sentence for each source picture. `pictures` is a JSON list of their names and digests."""

    RETURN_TYPES: ClassVar[tuple[str, ...]] = ()
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"captioner": (READER,), "pictures": TEXT}, "hidden": HIDDEN_INPUT}

    def ask(self, captioner: PictureReader, pictures: str, context: RunContext) -> dict[str, Any]:
        bring(captioner.patcher)
        context.answers.extend(captioner.reader.answers(_sources(pictures, context)))
        return {}


class DreamerClipAnswer(_Asking):
    """What word lists or an aesthetic head say of what CLIP sees in each source picture."""

    RETURN_TYPES: ClassVar[tuple[str, ...]] = ()
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        readers = {"clip": (READER,), "asked": (READER,)}
        return {"required": {**readers, "pictures": TEXT}, "hidden": HIDDEN_INPUT}

    def ask(
        self, clip: PictureReader, asked: PictureReader, pictures: str, context: RunContext
    ) -> dict[str, Any]:
        bring(clip.patcher)
        features = clip.reader.features(_sources(pictures, context))
        context.answers.extend(asked.reader.answers(features))
        return {}


class DreamerAestheticScore(_Asking):
    """Lets finished pictures pass, and scores each.

    Where the device has no room for it there is no score: that costs nobody a picture.
    """

    RETURN_TYPES: ClassVar[tuple[str, ...]] = ("IMAGE",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        readers = {"clip": (READER,), "asked": (READER,)}
        return {"required": {"images": ("IMAGE",), **readers}, "hidden": HIDDEN_INPUT}

    def ask(
        self, images: Tensor, clip: PictureReader, asked: PictureReader, context: RunContext
    ) -> tuple[Tensor]:
        """(batch, height, width, 3 or 4), 0 to 1, to the same."""
        try:
            bring(clip.patcher)
            features = clip.reader.features([_on_white(_image(each)) for each in images.cpu()])
        except OutOfMemory as error:
            log.warning("pictures without an aesthetic score: %s", error)
            context.answers.extend([None] * len(images))
        else:
            context.answers.extend(asked.reader.answers(features))
        return (images,)


def _sources(pictures: str, context: RunContext) -> Sequence[Image.Image]:
    return [_on_white(_pil(context.images[name])) for name, _digest in json.loads(pictures)]


def _pil(image: SourceImage) -> Image.Image:
    return image.to_pil()


def _image(pixels: Tensor) -> Image.Image:
    values = np.clip(255.0 * pixels.numpy(), 0, 255).astype(np.uint8)
    return Image.fromarray(values)


def _on_white(image: Image.Image) -> Image.Image:
    """In RGB: what is transparent counts as white, as in every source picture."""
    if image.mode != "RGBA":
        return image.convert("RGB")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
