"""DreamerLora: ComfyUI's LoraLoader, except that a LoRA without effect is never silent.

What can't be applied is found out before anything is sampled, and told.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar
from uuid import UUID, uuid5
from weakref import WeakKeyDictionary

import comfy.lora
import comfy.lora_convert
from torch import Size, Tensor

from hordelib.comfyui.loaders.loras import ReadLora
from hordelib.comfyui.nodes.context import HIDDEN_INPUT, NodeNotes, RunContext, with_notes
from hordelib.comfyui.nodes.patch_shapes import fits, with_whole_core
from hordelib.files.model_key import ModelKey
from hordelib.job.notes import GenMetadata, MetadataType, MetadataValue

log = logging.getLogger(__name__)

STRENGTH = ("FLOAT", {"min": -100.0, "max": 100.0})

Weights = Mapping[str, Tensor]
Patches = dict[Any, Any]  # ComfyUI's: by the weight's name, or (name, a part of it)


class DreamerLora:
    """Takes and gives what LoraLoader does. The model that it gets stays as it is.

    `lora_name` is the client's, for notes; the file at `path` is on loan.
    """

    CATEGORY = "dreamer"
    FUNCTION = "apply"
    RETURN_TYPES: ClassVar[tuple[str, ...]] = ("MODEL", "CLIP")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "model": ("MODEL",),
                "clip": ("CLIP",),
                "lora_name": ("STRING", {}),
                "path": ("STRING", {}),
                "strength_model": STRENGTH,
                "strength_clip": STRENGTH,
            },
            "hidden": HIDDEN_INPUT,
        }

    def apply(
        self, model: Any, clip: Any, lora_name: str, context: RunContext, **inputs: Any
    ) -> dict[str, Any]:
        weights: ReadLora = context.models[ModelKey("lora", Path(inputs["path"]))]
        fit = fit_to_model(weights, model, clip)
        notes = fit.notes(lora_name)
        if notes:
            log.warning("LoRA %s: %s", lora_name, fit)
        if fit.is_usable:
            model = patched(model, fit.patches, inputs["strength_model"], weights.reading)
            clip = patched(clip, fit.patches, inputs["strength_clip"], weights.reading)
        return with_notes((model, clip), NodeNotes(to_all=notes))


def patched(part: Any, patches: Patches, strength: float, reading: UUID) -> Any:
    """A clone of a ModelPatcher or CLIP that has those of the patches that are its own.

    ComfyUI takes the model for another one where `patches_uuid` is: the same LoRA in the same
    strength has the same, so that a later job need not patch the weights again.
    """
    if strength == 0:
        return part
    clone = part.clone()
    clone.add_patches(patches, strength)
    _patcher(clone).patches_uuid = uuid5(_patcher(part).patches_uuid, f"{reading} {strength}")
    return clone


def _patcher(part: Any) -> Any:
    return getattr(part, "patcher", part)


# Some files hold a part or two that a variant of the model lacks. A LoRA for another family fits by
# accident, where layers have the same names: in their shapes it shows, or in its having nothing but
# a text encoder in common with the model.
LEAST_USED, MOST_MISSHAPEN, ALL_BUT = 0.5, 0.1, 0.95
LONGEST_NAME = 300  # characters; no weight of a model has a name near to that

# What reading a stranger's tensors raises in ComfyUI: half of a pair is missing, a scalar is none.
_UNREADABLE = (KeyError, IndexError, ValueError, TypeError, AttributeError, RuntimeError)


@dataclass(frozen=True, slots=True)
class Fit:
    """How a LoRA fits a model: the patches that can be applied, out of how many parts.

    `used` parts have their place as a whole. Of `misshapen` ones something can't be applied,
    `broken` ones can't even be read. `reads_text` says that only the text encoder is changed.
    """

    parts: int
    used: int = 0
    patches: Patches = field(default_factory=dict[Any, Any])
    misshapen: int = 0
    broken: int = 0
    reads_text: bool = False

    @property
    def is_usable(self) -> bool:
        is_foreign = self.reads_text and self.used < self.parts * LEAST_USED
        is_shapely = self.misshapen <= (self.used + self.misshapen) * MOST_MISSHAPEN
        return bool(self.patches) and is_shapely and not is_foreign

    def notes(self, name: str) -> tuple[GenMetadata, ...]:
        """What the client has to know; nothing where it is as asked."""
        if not self.parts or (self.broken and not self.patches):
            return (GenMetadata(MetadataType.LORA, MetadataValue.PARSE_FAILED, name),)
        if not self.is_usable:
            return (GenMetadata(MetadataType.LORA, MetadataValue.BASELINE_MISMATCH, name),)
        if self.misshapen or self.broken or self.used < self.parts * ALL_BUT:
            told = f"LoRA {name} fits in part: {self}"
            return (GenMetadata(MetadataType.INFORMATION, MetadataValue.SEE_REF, told),)
        return ()

    def __str__(self) -> str:
        unfit = self.misshapen + self.broken
        return f"{self.used} of {self.parts} parts fit, {unfit} can't be applied"


def fit_to_model(weights: Weights, model: Any, clip: Any) -> Fit:
    """Find each part's place in the UNet or the text encoder, by name and by shape."""
    unet = _places(model.model, comfy.lora.model_lora_keys_unet)
    encoder = _places(clip.cond_stage_model, comfy.lora.model_lora_keys_clip)
    try:
        converted = comfy.lora_convert.convert_lora(dict(weights))
    except _UNREADABLE:
        return Fit(0)
    shapes = unet.shapes | encoder.shapes
    wanted = _named(converted, unet.names | encoder.names)
    patches: Patches = {}
    used = misshapen = broken = 0
    for name, place in wanted.items():
        try:
            found: Patches = comfy.lora.load_lora(converted, {name: place}, log_missing=False)
        except _UNREADABLE:
            broken += 1
            continue
        fitting = {
            place: with_whole_core(patch)
            for place, patch in found.items()
            if _fits(place, patch, shapes)
        }
        patches |= fitting
        used += 0 < len(fitting) == len(found)
        misshapen += len(fitting) < len(found)
    reads_text = all(_name(place) in encoder.shapes for place in patches)
    return Fit(count_parts(converted), used, patches, misshapen, broken, reads_text)


@dataclass(frozen=True, slots=True)
class Places:
    """Of a UNet or a text encoder: which weight each name in a LoRA's file is for, and its shape.

    They are the same as long as it is loaded, and finding them takes longer than fitting a LoRA.
    """

    names: dict[str, Any]
    shapes: dict[str, Size]


_PLACES: WeakKeyDictionary[Any, Places] = WeakKeyDictionary()


def _places(module: Any, find_names: Callable[[Any, dict[str, Any]], object]) -> Places:
    if module not in _PLACES:
        names: dict[str, Any] = {}
        find_names(module, names)
        shapes = {name: tensor.shape for name, tensor in module.state_dict().items()}
        _PLACES[module] = Places(_with_current_names(names), shapes)
    return _PLACES[module]


def _with_current_names(names: dict[str, Any]) -> dict[str, Any]:
    """Also what diffusers calls attention layers today: ComfyUI knows `processor.to_k` only."""
    current = {
        short + ending: place
        for name, place in names.items()
        if ".processor.to_" in name
        for short in (name.replace(".processor.to_", ".to_"),)
        for ending in (("", ".0") if short.endswith(".to_out") else ("",))
    }
    return current | names


# What stands before these may be the name of a part: `unet.conv.lora_up.weight`, `conv_lora.up…`.
_NAME_ENDS = re.compile(r"\.|_lora\.")


def _named(weights: Weights, names: dict[str, Any]) -> dict[str, Any]:
    """Those of the names that the file has: ComfyUI would try each with every kind of LoRA."""
    said = {
        name[: end.start()]
        for name in weights
        if len(name) <= LONGEST_NAME
        for end in _NAME_ENDS.finditer(name)
    }
    return {name: place for name, place in names.items() if name in said}


# How trainers end the names of a part's tensors; what stands before is the part's name.
_PART_ENDS = re.compile(
    r"[._](lora[._A-Z]|hada_|lokr_|oft_|boft_|glora_)|\.[ab][12]\.weight$"
    r"|\.(alpha|dora_scale|rescale|diff|diff_b|w_norm|b_norm|set_weight|reshape_weight)$"
)


def count_parts(weights: Weights) -> int:
    """How many weights of a model the file changes, by the names of its tensors."""
    names = ((name, _PART_ENDS.search(name)) for name in weights)
    return len({name[: end.start()] for name, end in names if end is not None})


def _name(place: Any) -> str:
    return place if isinstance(place, str) else place[0]


def _fits(place: Any, patch: Any, shapes: Mapping[str, Size]) -> bool:
    """Whether ComfyUI, given this patch, changes the weight, or a part of it."""
    if _name(place) not in shapes:
        return False
    shape = list(shapes[_name(place)])
    if not isinstance(place, str) and place[1] is not None:  # None: all of it, in another order
        axis, _, length = place[1]
        shape[axis] = length
    return fits(patch, tuple(shape))
