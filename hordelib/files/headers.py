"""What a model's file says about itself: its family, and what its UNet reads.

Only names and shapes of the tensors are read, never a tensor. What kind a file is of, its first
bytes tell.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from hordelib.errors import ModelBroken, ModelMissing
from hordelib.files.file_kinds import FileKind, kind_of
from hordelib.files.pickles import insist_on_safe_pickle, read_pickle
from hordelib.files.safetensors_header import read_header
from hordelib.job.families import (
    ANIMA,
    CASCADE,
    FLUX,
    FLUX_DEV,
    KREA2,
    QWEN_IMAGE,
    SD1,
    SD2,
    SDXL,
    Z_IMAGE,
    Family,
)

Shapes = Mapping[str, tuple[int, ...]]

ORDINARY = 4  # channels that a UNet reads, where it reads nothing but the latent
# Of the UNet's tensors: in a checkpoint, as Cosmos and its kin have it, and alone in a file.
_PREFIXES = ("model.diffusion_model.", "net.", "")
_FIRST_WEIGHT = "input_blocks.0.0.weight"
_TEXT_WEIGHT = ".attn2.to_k.weight"  # reads the text: its last axis is the text encoder's width
_TEXT_WIDTHS = {768: SD1, 1024: SD2, 2048: SDXL}
_WIDEST = max(_TEXT_WIDTHS)


def detect(path: Path) -> tuple[Family, int]:
    """Family of a model's main file, and the channels that its UNet reads.

    Models that are no Stable Diffusion UNet count as ORDINARY. Raises ModelMissing, and ModelBroken
    where the file is none of ours.
    """
    if not path.is_file():
        raise ModelMissing(f"{path.name}: no such file in {path.parent}")
    unet = unet_of(read_shapes(path))
    family = _family(path, unet)
    channels = _channels(unet)
    if channels not in family.channels:
        known = ", ".join(str(each) for each in sorted(family.channels))
        raise ModelBroken(
            f"{path.name} reads {channels} channels, as depth models and upscalers do: of"
            f" {family.name}, those that read {known} are served; name another file"
        )
    return family, channels


def read_shapes(path: Path) -> Shapes:
    """The tensors' shapes by their names.

    Raises ModelBroken, naming the file and the remedy, for one that is broken or no model.
    """
    kind = kind_of(path)
    if kind is FileKind.safetensors:
        return {name: tensor.shape for name, tensor in read_header(path).tensors.items()}
    return read_pickle(path, kind).shapes


def verify_checkpoint(path: Path) -> None:
    """See that a safetensors file is as long as its header says, and that a pickle runs no code.

    Reads only the list of tensors. Raises ModelBroken, naming the file and the remedy.
    """
    kind = kind_of(path)
    if kind is FileKind.safetensors:
        read_header(path)
    else:
        insist_on_safe_pickle(path, kind)


def _family(path: Path, unet: Shapes) -> Family:
    if "clip_mapper.weight" in unet:
        raise ModelBroken(f"{path.name} is stage B of Stable Cascade: name the file of stage C")
    family = next((row for names, row in _MARKS if unet.keys() >= names), None)
    family = family or _TEXT_WIDTHS.get(_text_width(unet))
    if family is None or any(is_other(unet) for is_other in _LOOKALIKES):
        raise ModelBroken(f"{path.name} is of no model family that is served")
    return family


# Weights that only one family has (ComfyUI's model_detection.py); the first row that fits.
_MARKS: tuple[tuple[set[str], Family], ...] = (
    ({"clf.1.weight", "clip_txt_mapper.weight"}, CASCADE),
    ({"double_blocks.0.img_attn.norm.key_norm.scale", "guidance_in.in_layer.weight"}, FLUX_DEV),
    ({"double_blocks.0.img_attn.norm.key_norm.scale", "img_in.weight"}, FLUX),
    ({"txt_norm.weight", "img_in.weight"}, QWEN_IMAGE),
    ({"cap_embedder.1.weight", "x_embedder.weight"}, Z_IMAGE),
    ({"txtfusion.projector.weight", "first.weight"}, KREA2),
    ({"blocks.0.mlp.layer1.weight", "llm_adapter.blocks.0.cross_attn.q_proj.weight"}, ANIMA),
)


_PATCH = 64  # values of a patch of the latent: 16 channels of 2 x 2
_LOOKALIKES: tuple[Callable[[Shapes], bool], ...] = (
    lambda unet: "double_stream_modulation_img.lin.weight" in unet,  # Flux 2
    lambda unet: "distilled_guidance_layer.norms.0.scale" in unet,  # Chroma
    # Flux fill, canny, depth
    lambda unet: _axis(unet, "img_in.weight", 1, or_else=_PATCH) != _PATCH,
    lambda unet: "label_emb.0.0.weight" in unet and _text_width(unet) != _WIDEST,  # unCLIP
)


def unet_of(shapes: Shapes) -> Shapes:
    """What belongs to the UNet, by its names there."""
    prefix = next(p for p in _PREFIXES if any(name.startswith(p) for name in shapes) or not p)
    return {
        name.removeprefix(prefix): shape
        for name, shape in shapes.items()
        if name.startswith(prefix)
    }


def _channels(unet: Shapes) -> int:
    return _axis(unet, _FIRST_WEIGHT, 1, or_else=ORDINARY)


def _text_width(unet: Shapes) -> int:
    if _FIRST_WEIGHT not in unet:
        return 0
    readers = (name for name in unet if name.endswith(_TEXT_WEIGHT))
    return next((_axis(unet, name, -1, or_else=0) for name in readers), 0)


def _axis(unet: Shapes, name: str, axis: int, *, or_else: int) -> int:
    """Length of one axis of a tensor; `or_else` where there is no such tensor, or axis."""
    shape = unet.get(name, ())
    return shape[axis] if len(shape) > 1 else or_else
