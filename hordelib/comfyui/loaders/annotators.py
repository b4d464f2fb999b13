"""Weights of annotators."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hordelib.comfyui.loaders.networks import on_patcher
from hordelib.comfyui.loaders.reading import reading
from hordelib.files.model_key import ModelKey
from hordelib.job.control_types import ControlType
from hordelib.pictures.annotators import Draw, read_annotator


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
