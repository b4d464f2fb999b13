"""Networks that take a picture: upscalers, face fixers, annotators, and what finds the subject."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hordelib.comfyui.device_faults import first_line
from hordelib.comfyui.loaders.reading import reading
from hordelib.errors import ModelBroken, NotNumbers
from hordelib.files.model_key import ModelKey
from hordelib.job.control_types import ControlType
from hordelib.pictures.annotators import Draw, read_annotator
from hordelib.pictures.finite import watch
from hordelib.safety.onnx_session import open_session

if TYPE_CHECKING:
    from onnxruntime import InferenceSession
    from spandrel import ArchRegistry, ImageModelDescriptor
    from torch import Tensor

    from hordelib.pictures.face_detection import FaceDetector


def on_patcher(network: Any) -> Any:
    """A ModelPatcher of a torch module that starts in main memory: the cache moves it as it does
    ComfyUI's models."""
    import comfy.model_management
    import comfy.model_patcher

    return comfy.model_patcher.ModelPatcher(
        network,
        load_device=comfy.model_management.get_torch_device(),
        offload_device=comfy.model_management.unet_offload_device(),
    )


def bring(patcher: Any) -> None:
    """Have the network on the device, all of it: its layers can't fetch their weights one by one.

    Raises OutOfMemory where the budget has no room for it and for what its computing takes.
    """
    import comfy.model_management

    comfy.model_management.load_models_gpu([patcher], force_full_load=True)


FACES = "FaceSR"  # spandrel's purpose for networks that take aligned faces


def load_image_model(path: Path) -> ImageModelDescriptor:
    """Read a network that spandrel knows, for pictures in colour.

    No pickled code is run (torch's weights_only).

    Raises ModelBroken, naming the file, when it can't be read or takes something else.
    """
    import comfy.utils
    from spandrel import ImageModelDescriptor, ModelLoader

    with reading(path):
        state = comfy.utils.load_torch_file(str(path), safe_load=True)
        network = ModelLoader(registry=_registry()).load_from_state_dict(state)
    if not isinstance(network, ImageModelDescriptor):
        raise ModelBroken(f"{path.name} ({network.architecture.name}) needs a mask")
    if (network.input_channels, network.output_channels) != (3, 3):
        raise ModelBroken(f"{path.name} ({network.architecture.name}) is not for RGB pictures")
    watch(network.model, path.name)
    return network.eval()


def _registry() -> ArchRegistry:
    """spandrel's with the further architectures; its own is shared by the whole process."""
    from spandrel import MAIN_REGISTRY
    from spandrel_extra_arches import EXTRA_REGISTRY

    registry = MAIN_REGISTRY.copy()
    registry.add(*EXTRA_REGISTRY, ignore_duplicates=True)
    return registry


# Half the time and half the memory, for the one family where both hurt. The others stay at the
# full precision that ComfyUI gives them.
BFLOAT16 = ("DAT",)


@dataclass(frozen=True, slots=True)
class Upscaler:
    """A network, and the patcher that brings it to the device."""

    network: ImageModelDescriptor
    patcher: Any

    @property
    def model(self) -> Any:
        return self.network.model

    @property
    def scale(self) -> int:
        return self.network.scale

    def __call__(self, image: Tensor) -> Tensor:
        """(1, 3, height, width), 0 to 1, to the same `scale` times as large, of the same type."""
        return self.network(image.to(self.network.dtype)).to(image.dtype)


def load_upscaler(key: ModelKey) -> Upscaler:
    """Raises ModelBroken, naming the file, when it can't be read or is no upscaler."""
    import comfy.model_management as device

    network = load_image_model(key.path)
    name = network.architecture.name
    if network.purpose == FACES:
        raise ModelBroken(f"{key.path.name} ({name}) is a face fixer: it belongs beside the others")
    if computes_in_bfloat16(network, device.should_use_bf16(device.get_torch_device())):
        network.bfloat16()
    return Upscaler(network, on_patcher(network.model))


def computes_in_bfloat16(network: ImageModelDescriptor, device_is_fast_at_it: bool) -> bool:
    architecture = network.architecture.id
    return architecture in BFLOAT16 and network.supports_bfloat16 and device_is_fast_at_it


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


# What U-2-Net was trained with (its data_loader.py): ImageNet's means and deviations, after the
# brightest value of the picture was made 1.
SIDE = 320
MEAN = np.array((0.485, 0.456, 0.406), np.float32)
DEVIATION = np.array((0.229, 0.224, 0.225), np.float32)


@dataclass(frozen=True, slots=True)
class SubjectFinder:
    """U-2-Net or a relative of it: says of each pixel how surely it belongs to the subject.

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


@dataclass(frozen=True, slots=True)
class LoadedAnnotator:
    """An annotator, and the ComfyUI patcher that brings its network to the device."""

    patcher: Any
    draw: Draw


def load_annotator(key: ModelKey) -> LoadedAnnotator:
    """Read the annotator of the control type `key.variant`.

    Raises ModelBroken, naming the file, where it holds something else.
    """
    with reading(key.path):
        annotator = read_annotator(ControlType(key.variant), key.path)
    return LoadedAnnotator(on_patcher(annotator.network), annotator.draw)
