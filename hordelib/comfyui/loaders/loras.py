"""LoRA files: the tensors that are added to a model's weights."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from types import MappingProxyType
from uuid import uuid4

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from hordelib.comfyui.device_faults import first_line
from hordelib.errors import ModelBroken
from hordelib.files.model_key import ModelKey
from hordelib.files.safetensors_header import ADAPTER_BYTES, read_header

log = logging.getLogger(__name__)

MOST = 65504.0  # the largest number of half precision
# Of a part whose matrices are whole, it has no effect, and trainers write any number there, which
# is infinite in half precision. Without it, ComfyUI takes the scale as 1.
ALPHA = ".alpha"


class ReadLora(dict[str, Tensor]):
    """A file's tensors by name. `reading` is of this one time that it was read."""

    def __init__(self, tensors: Mapping[str, Tensor] = MappingProxyType({})):
        super().__init__(tensors)
        self.reading = uuid4()


def load_lora(key: ModelKey) -> ReadLora:
    """The file's tensors by name. Of a file that can't be used there are none, never an error.

    A job whose LoRA is broken gets its picture without it; the node that applies LoRAs says so.
    """
    try:
        read_header(key.path, ADAPTER_BYTES)
        tensors = {
            name: tensor
            for name, tensor in load_file(key.path).items()
            if not name.endswith(ALPHA) or _is_finite(tensor)
        }
    except (OSError, ModelBroken, SafetensorError, ValueError, KeyError) as error:
        log.warning("LoRA %s can't be read: %s", key.path.name, first_line(error))
        return ReadLora()
    if not all(is_sane(tensor) for name, tensor in tensors.items() if not name.endswith(ALPHA)):
        log.warning("LoRA %s is broken: its values are not numbers, or too large", key.path.name)
        return ReadLora()
    return ReadLora(tensors)


def _is_finite(tensor: Tensor) -> bool:
    return not tensor.is_complex() and bool(tensor.float().isfinite().all())


def is_sane(tensor: Tensor) -> bool:
    """Numbers that half precision could hold; nothing that does anything has larger ones."""
    if tensor.is_complex():
        return False
    return not tensor.numel() or bool(tensor.float().abs().max() <= MOST)  # not for NaN
