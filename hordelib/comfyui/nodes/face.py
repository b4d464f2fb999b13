"""DreamerFaceFixer: finds each face, restores it, and blends it back."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import comfy.model_management
import torch
from torch import Tensor

from hordelib.comfyui.loaders.image_networks import FaceFixer, bring
from hordelib.comfyui.nodes.context import HIDDEN_INPUT, RunContext
from hordelib.files.model_key import ModelKey
from hordelib.pictures.face_alignment import Pose, cut_out, pose, put_back

MIN_EYE_DISTANCE = 5  # pixels; below it there is nothing to restore a face from (as GFPGAN has it)


class DreamerFaceFixer:
    """A picture without a face stays as it is, to the bit; so does all of it at strength 0.

    `strength` is how much of the restored face is seen, for all face fixers alike. CodeFormer's own
    fidelity weight stays at 0.5, at which the horde's other workers run it.
    """

    CATEGORY = "dreamer"
    FUNCTION = "fix"
    RETURN_TYPES: ClassVar[tuple[str, ...]] = ("IMAGE",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": ("IMAGE",),
                "model_name": ("STRING", {}),
                "strength": ("FLOAT", {"min": 0.0, "max": 1.0}),
            },
            "hidden": HIDDEN_INPUT,
        }

    @torch.inference_mode()
    def fix(
        self, image: Tensor, model_name: str, strength: float, context: RunContext
    ) -> tuple[Tensor]:
        """`image` is (batch, height, width, 3 or 4), 0 to 1."""
        if strength == 0:
            return (image,)
        fixer: FaceFixer = context.models[ModelKey("face_fixer", Path(model_name))]
        fixed = image.clone()
        bring(fixer.patcher)
        device = comfy.model_management.get_torch_device()
        for number, picture in enumerate(image[..., :3]):
            for face in _poses(fixer, picture.to(device)):
                _raise_if_cancelled(context)
                before = fixed[number, ..., :3].to(device)
                fixed[number, ..., :3] = _fix_one(fixer, before, face, strength)
            context.on_step(number + 1, len(image))
        return (fixed,)


def _poses(fixer: FaceFixer, picture: Tensor) -> list[Pose]:
    landmarks = fixer.detector.find(_channels_first(picture)).landmarks
    eyes_apart = (landmarks[:, 1] - landmarks[:, 0]).square().sum(1).sqrt()
    return [pose(points) for points in landmarks[eyes_apart >= MIN_EYE_DISTANCE]]


def _fix_one(fixer: FaceFixer, picture: Tensor, face: Pose, strength: float) -> Tensor:
    image = _channels_first(picture)
    restored = _restored(fixer, cut_out(image, face))
    return put_back(image, restored, face, strength)[0].movedim(0, -1)


def _restored(fixer: FaceFixer, face: Tensor) -> Tensor:
    """The network's own drawing of an aligned face, 0 to 1; the same face gives the same drawing.

    GFPGAN would draw new noise each time; it takes the noise of its own file instead.
    """
    drawn, *_ = fixer.network(face * 2 - 1, randomize_noise=False)
    return ((drawn + 1) / 2).clamp(0, 1)


def _raise_if_cancelled(context: RunContext) -> None:
    if context.cancelled.is_set():
        raise comfy.model_management.InterruptProcessingException


def _channels_first(picture: Tensor) -> Tensor:
    """(height, width, 3) to (1, 3, height, width)."""
    return picture.movedim(-1, 0)[None]
