"""Upscalers: whatever spandrel knows that makes a picture larger, or keeps its size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hordelib.comfyui.loaders.image_models import FACES, load_image_model
from hordelib.comfyui.loaders.networks import on_patcher
from hordelib.errors import ModelBroken
from hordelib.files.model_key import ModelKey

if TYPE_CHECKING:
    from spandrel import ImageModelDescriptor
    from torch import Tensor

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
