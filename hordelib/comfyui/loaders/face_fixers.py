"""Face fixers: GFPGAN, CodeFormer, RestoreFormer, each with what finds the faces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hordelib.comfyui.loaders.image_models import FACES, load_image_model
from hordelib.comfyui.loaders.networks import on_patcher
from hordelib.errors import ModelBroken
from hordelib.files.model_key import ModelKey

if TYPE_CHECKING:
    from hordelib.pictures.face_detection import FaceDetector


@dataclass(frozen=True, slots=True)
class FaceFixer:
    """A network that restores one aligned face, and the detector of faces."""

    network: Any  # takes and gives (1, 3, 512, 512), -1 to 1, the picture first of a tuple
    detector: FaceDetector
    patcher: Any  # of both


def load_face_fixer(key: ModelKey) -> FaceFixer:
    """Raises ModelBroken, naming the file, when it can't be read or is for something else."""
    from torch import nn

    from hordelib.pictures.face_detection import load_detector

    network = load_image_model(key.path)
    if network.purpose != FACES:
        name = network.architecture.name
        raise ModelBroken(f"{key.path.name} ({name}) is no face fixer")
    detector = load_detector()
    networks = nn.ModuleList([network.model, *detector.stages])
    return FaceFixer(network.model, detector, on_patcher(networks))
