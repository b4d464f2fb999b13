"""What tells a picture's subject from its background: U-2-Net and its relatives, as ONNX files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hordelib.comfyui.device_faults import first_line
from hordelib.errors import ModelBroken, NotNumbers
from hordelib.files.model_key import ModelKey
from hordelib.safety.onnx_session import open_session

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

# What U-2-Net was trained with (its data_loader.py): ImageNet's means and deviations, after the
# brightest value of the picture was made 1.
SIDE = 320
MEAN = np.array((0.485, 0.456, 0.406), np.float32)
DEVIATION = np.array((0.229, 0.224, 0.225), np.float32)


@dataclass(frozen=True, slots=True)
class SubjectFinder:
    """A network that says of each pixel how surely it belongs to the subject.

    It computes in main memory; `model` is what it is lent by, as ComfyUI's patchers are.
    """

    session: InferenceSession
    name: str  # of its file

    @property
    def model(self) -> InferenceSession:
        return self.session

    def find(self, image: Image.Image) -> NDArray[np.uint8]:
        """(height, width) of the image's size; 255 is surely the subject, 0 surely not.

        The network works at 320 x 320 pixels, so edges are soft.
        """
        pixels = np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS))
        values = (pixels / max(int(pixels.max()), 1) - MEAN) / DEVIATION
        found = self._find(values.astype(np.float32))
        if not np.isfinite(found).all():
            raise NotNumbers(self.name)
        mask = Image.fromarray(_stretched(found))
        return np.asarray(mask.resize(image.size, Image.Resampling.LANCZOS))

    def gives_numbers(self) -> bool:
        """Whether it does for a plain grey picture."""
        return bool(np.isfinite(self._find(np.zeros((SIDE, SIDE, 3), np.float32))).all())

    def _find(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """(SIDE, SIDE, 3) as the network takes them, to (SIDE, SIDE)."""
        batch = values.transpose(2, 0, 1)[None]
        return self.session.run(None, {self.session.get_inputs()[0].name: batch})[0][0, 0]


def load_subject_finder(key: ModelKey) -> SubjectFinder:
    """Read the network, to run on the CPU. Raises ModelBroken, naming the file, when it can't be
    read or takes something else than one RGB picture.
    """
    try:
        session = open_session(key.path)
    except Exception as error:  # onnxruntime's errors have no common base
        raise ModelBroken(f"{key.path.name} can't be loaded: {first_line(error)}") from error
    if [list(given.shape[1:]) for given in session.get_inputs()] != [[3, SIDE, SIDE]]:
        raise ModelBroken(f"{key.path.name} does not take a picture of {SIDE}x{SIDE} pixels")
    return SubjectFinder(session, key.path.name)


def _stretched(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """To 0 to 255, as U-2-Net's own test does: its smallest value to 0, its largest to 255."""
    low, high = float(values.min()), float(values.max())
    return ((values - low) / max(high - low, 1e-6) * 255).astype(np.uint8)
