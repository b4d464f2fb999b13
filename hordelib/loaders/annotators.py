"""Weights of annotators."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hordelib.annotators import Draw, read_annotator
from hordelib.control_types import ControlType
from hordelib.loaders.reading import reading
from hordelib.model_cache import ModelKey


@dataclass(frozen=True, slots=True)
class LoadedAnnotator:
    """An annotator, and the ComfyUI patcher that brings its network to the device."""

    patcher: Any
    draw: Draw


def load_annotator(key: ModelKey) -> LoadedAnnotator:
    """Read the annotator of the control type `key.variant`.

    Raises ModelBroken, naming the file, where it holds something else.
    """
    import comfy.model_management
    import comfy.model_patcher

    with reading(key.path):
        annotator = read_annotator(ControlType(key.variant), key.path)
    patcher = comfy.model_patcher.ModelPatcher(
        annotator.network,
        load_device=comfy.model_management.get_torch_device(),
        offload_device=comfy.model_management.unet_offload_device(),
    )
    return LoadedAnnotator(patcher, annotator.draw)
