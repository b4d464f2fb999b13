"""Files that spandrel knows: networks that take a picture and give a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hordelib.comfyui.loaders.reading import reading
from hordelib.errors import ModelBroken
from hordelib.pictures.finite import watch

if TYPE_CHECKING:
    from spandrel import ArchRegistry, ImageModelDescriptor

FACES = "FaceSR"  # spandrel's purpose for networks that take aligned faces


def load_image_model(path: Path) -> ImageModelDescriptor:
    """Read a network for pictures in colour; no pickled code is run (torch's weights_only).

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
