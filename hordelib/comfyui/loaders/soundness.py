"""Whether a file that works beside models can give numbers at all: looked at where some are none.

What a client sends has no part in that: files are read again, without the LoRAs of a job.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hordelib.comfyui.loaders.image_networks import SubjectFinder
from hordelib.comfyui.loaders.picture_readers import PictureReader
from hordelib.comfyui.loaders.tensors import read_tensors
from hordelib.errors import AuxiliaryBroken
from hordelib.files.model import Model
from hordelib.files.model_key import ModelKey, files_of
from hordelib.pictures.finite import are_numbers


def insist_on_sound_auxiliaries(values: Mapping[ModelKey, Any], model: Model) -> None:
    """Raises AuxiliaryBroken for a ControlNet, annotator or post-processor among what is held."""
    for key, value in values.items():
        is_auxiliary = key.kind != "lora" and key.path not in model.files.values()
        if is_auxiliary and not _is_sound(key, value):
            name = key.path.name
            raise AuxiliaryBroken(
                key.path,
                f"{name} gives values that are not numbers; fetch it again, or another one",
            )


def _is_sound(key: ModelKey, value: Any) -> bool:
    if isinstance(value, SubjectFinder):
        return value.gives_numbers()
    if isinstance(value, PictureReader):
        return value.has_numbers()
    return all(are_numbers(read_tensors(path)[0]) for path in files_of(key))
