"""What reads each kind of model file into memory; the model cache asks it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hordelib.comfyui.loaders.control_nets import load_control_net
from hordelib.comfyui.loaders.diffusion import (
    load_checkpoint,
    load_clip_vision,
    load_diffusion_model,
    load_text_encoder,
    load_vae,
)
from hordelib.comfyui.loaders.image_networks import (
    load_annotator,
    load_face_fixer,
    load_subject_finder,
    load_upscaler,
)
from hordelib.comfyui.loaders.layer_diffuse import (
    load_attention_sharing,
    load_layer_patches,
    load_transparent_decoder,
)
from hordelib.comfyui.loaders.loras import load_lora
from hordelib.comfyui.loaders.missing_weights import insist_on_all_weights
from hordelib.comfyui.loaders.picture_readers import load_picture_reader
from hordelib.files.file_kinds import FileKind, kind_of
from hordelib.files.model_key import ModelKey, size_bytes
from hordelib.memory.mapped_weights import mapping
from hordelib.memory.parts import LoadedPart, is_patched, make_part

LOADERS: dict[str, Callable[[ModelKey], Any]] = {
    "annotator": load_annotator,
    "checkpoint": load_checkpoint,
    "upscaler": load_upscaler,
    "face_fixer": load_face_fixer,
    "background": load_subject_finder,
    "clip_vision": load_clip_vision,
    "control_net": load_control_net,
    "diffusion_model": load_diffusion_model,
    "layer_patches": load_layer_patches,
    "attention_sharing": load_attention_sharing,
    "transparent_decoder": load_transparent_decoder,
    "lora": load_lora,
    "picture_reader": load_picture_reader,
    "text_encoder": load_text_encoder,
    "vae": load_vae,
}


def load(key: ModelKey) -> Any:
    """The model of this file. Raises ModelBroken, naming the file, when it can't be used."""
    return LOADERS[key.kind](key)


def load_part(key: ModelKey) -> LoadedPart:
    """The same for the cache, which moves it: weights stay in their file until they are used."""
    with mapping() as weights:
        value = load(key)
    insist_on_all_weights(key, weights.missing)
    return make_part(key, value, weights, size_bytes(key))


def reading_bytes(key: ModelKey) -> int:
    """The most that `load_part` takes of main memory; nothing of a file that is mapped.

    Raises ModelBroken for a file that is no model.
    """
    is_mapped = is_patched(key) and kind_of(key.path) is FileKind.safetensors
    return 0 if is_mapped else size_bytes(key)
