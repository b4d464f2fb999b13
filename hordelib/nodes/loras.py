"""DreamerLora: ComfyUI's LoraLoader, except that a LoRA without effect is never silent."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from uuid import UUID, uuid5
from weakref import WeakKeyDictionary

import comfy.lora
import comfy.lora_convert
from torch import Size, Tensor

from hordelib.gen_metadata import GenMetadata, MetadataType, MetadataValue
from hordelib.loaders.loras import ReadLora
from hordelib.model_cache import ModelKey
from hordelib.nodes.context import HIDDEN_INPUTS, RunContext

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
            "hidden": HIDDEN_INPUTS,
        }

    def apply(
        self, model: Any, clip: Any, lora_name: str, context: RunContext, **inputs: Any
    ) -> tuple[Any, Any]:
        weights: ReadLora = context.models[ModelKey("lora", Path(inputs["path"]))]
        fit = fit_to_model(weights, model, clip)
        notes = fit.notes(lora_name)
        context.notes.put(inputs["title"], *notes)
        if notes:
            log.warning("LoRA %s: %s", lora_name, fit)
        if not fit.is_usable:
            return model, clip
        return (
            _patched(model, fit.patches, inputs["strength_model"], weights.reading),
            _patched(clip, fit.patches, inputs["strength_clip"], weights.reading),
        )


def _patched(part: Any, patches: Patches, strength: float, reading: UUID) -> Any:
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
# accident, where layers have the same names: in their shapes it shows.
LEAST_USED, MOST_MISSHAPEN, ALL_BUT = 0.5, 0.05, 0.95


@dataclass(frozen=True, slots=True)
class Fit:
    """How a LoRA fits a model: the patches that can be applied, out of how many parts."""

    parts: int
    patches: Patches
    misshapen: int

    @property
    def is_usable(self) -> bool:
        is_used = 0 < self.parts * LEAST_USED <= len(self.patches)
        return is_used and self.misshapen <= self.parts * MOST_MISSHAPEN

    def notes(self, name: str) -> tuple[GenMetadata, ...]:
        """What the client has to know; nothing where it is as asked."""
        if not self.parts:
            return (GenMetadata(MetadataType.LORA, MetadataValue.PARSE_FAILED, name),)
        if not self.is_usable:
            return (GenMetadata(MetadataType.LORA, MetadataValue.BASELINE_MISMATCH, name),)
        if len(self.patches) < self.parts * ALL_BUT:
            told = f"LoRA {name} fits in part: {self}"
            return (GenMetadata(MetadataType.INFORMATION, MetadataValue.SEE_REF, told),)
        return ()

    def __str__(self) -> str:
        return f"{len(self.patches)} of {self.parts} parts fit, {self.misshapen} have another shape"


def fit_to_model(weights: Weights, model: Any, clip: Any) -> Fit:
    """Find each part's place in the UNet or the text encoder, by name and by shape."""
    unet = _places(model.model, comfy.lora.model_lora_keys_unet)
    encoder = _places(clip.cond_stage_model, comfy.lora.model_lora_keys_clip)
    converted = comfy.lora_convert.convert_lora(dict(weights))
    parts = count_parts(converted)
    wanted = _named(converted, unet.names | encoder.names)
    try:
        found = comfy.lora.load_lora(converted, wanted, log_missing=False)
    except (KeyError, RuntimeError):  # half of a pair is missing, or an alpha is not a number
        return Fit(0, {}, 0)
    shapes = unet.shapes | encoder.shapes
    fitting = {place: patch for place, patch in found.items() if _fits(place, patch, shapes)}
    return Fit(parts, fitting, len(found) - len(fitting))


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
        _PLACES[module] = Places(names, shapes)
    return _PLACES[module]


# What stands before these may be the name of a part: `unet.conv.lora_up.weight`, `conv_lora.up…`.
_NAME_ENDS = re.compile(r"\.|_lora\.")


def _named(weights: Weights, names: dict[str, Any]) -> dict[str, Any]:
    """Those of the names that the file has: ComfyUI would try each with every kind of LoRA."""
    said = {name[: end.start()] for name in weights for end in _NAME_ENDS.finditer(name)}
    return {name: place for name, place in names.items() if name in said}


# How trainers end the names of a part's tensors; what stands before is the part's name.
_PART_ENDS = re.compile(
    r"[._](lora[._A-Z]|hada_|lokr_|oft_|boft_|glora_)"
    r"|\.(alpha|dora_scale|diff|diff_b|w_norm|b_norm|set_weight|reshape_weight)$"
)


def count_parts(weights: Weights) -> int:
    """How many weights of a model the file changes, by the names of its tensors."""
    names = ((name, _PART_ENDS.search(name)) for name in weights)
    return len({name[: end.start()] for name, end in names if end is not None})


def _fits(place: Any, patch: Any, shapes: Mapping[str, Size]) -> bool:
    """ComfyUI logs a patch of another shape and goes on without it, or fails while it samples."""
    name, offset = (place, None) if isinstance(place, str) else place[:2]
    shape = list(shapes.get(name, ()))
    if offset is not None:
        axis, _, length = offset
        shape[axis] = length
    measure = _MEASURES.get(getattr(patch, "name", "plain"))
    return measure is None or measure(patch) == (shape[0], Size(shape).numel())


Measure = tuple[int, int]  # rows, and values in all, of the change that a patch makes


def _lora(patch: Any) -> Measure:
    up, down, _, mid, *_ = patch.weights
    kernel = 1 if mid is None else mid[0, 0].numel()
    return up.shape[0], up.shape[0] * down[0].numel() * kernel


def _loha(patch: Any) -> Measure:
    first, second, _, _, _, core, *_ = patch.weights
    if core is None:
        return first.shape[0], first.shape[0] * second.shape[1]
    return first.shape[1], first.shape[1] * second.shape[1] * core[0, 0].numel()


def _lokr(patch: Any) -> Measure:
    left, right, _, left_a, left_b, right_a, right_b, core, _ = patch.weights
    rows, values = _factor(left, left_a, left_b, None)
    more_rows, more_values = _factor(right, right_a, right_b, core)
    return rows * more_rows, values * more_values


def _factor(whole: Tensor | None, a: Any, b: Any, core: Tensor | None) -> Measure:
    """One side of a Kronecker product: as it is, or as a product of two or three."""
    if whole is not None:
        return whole.shape[0], whole.numel()
    if core is None:
        return a.shape[0], a.shape[0] * b.shape[1]
    return a.shape[1], a.shape[1] * b.shape[1] * core[0, 0].numel()


def _plain(patch: Any) -> Measure:
    (values, *_) = patch[-1]
    return values.shape[0], values.numel()


# By ComfyUI's name of the adapter; the rarer ones are taken as they come.
_MEASURES: dict[str, Callable[[Any], Measure]] = {
    "lora": _lora,
    "loha": _loha,
    "lokr": _lokr,
    "plain": _plain,
}
