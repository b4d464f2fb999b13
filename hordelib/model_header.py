"""What a model's file says about itself: its family, and what its UNet reads.

Only names and shapes of the tensors are read, never a tensor; of a pickle nothing is executed.
"""

from __future__ import annotations

import json
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from hordelib.errors import ModelBroken, ModelMissing
from hordelib.families import (
    CASCADE,
    FLUX,
    FLUX_DEV,
    QWEN_IMAGE,
    SD1,
    SD2,
    SDXL,
    Z_IMAGE,
    Family,
)

Shapes = Mapping[str, tuple[int, ...]]

ORDINARY = 4  # channels that a UNet reads, where it reads nothing but the latent
_LENGTH_BYTES = 8
_MAX_HEADER_BYTES = 100 << 20  # the safetensors format's own limit
_PREFIXES = ("model.diffusion_model.", "")  # of the UNet: in a checkpoint, and alone in a file
_FIRST_WEIGHT = "input_blocks.0.0.weight"
_TEXT_WEIGHT = ".attn2.to_k.weight"  # reads the text: its last axis is the text encoder's width
_TEXT_WIDTHS = {768: SD1, 1024: SD2, 2048: SDXL}


def detect(path: Path) -> tuple[Family, int]:
    """Family of a model's main file, and the channels that its UNet reads.

    Models that are no Stable Diffusion UNet count as ORDINARY, and so does a pickle of a format
    that only loading it would tell: it is taken for a Stable Diffusion 1 model. Raises
    ModelMissing, and ModelBroken where the file is none of ours.
    """
    if not path.is_file():
        raise ModelMissing(f"{path.name}: no such file in {path.parent}")
    shapes = read_shapes(path)
    if shapes is None:
        return SD1, ORDINARY
    unet = _unet(shapes)
    family = _family(path, unet)
    first = unet.get(_FIRST_WEIGHT)
    return family, ORDINARY if first is None else first[1]


def read_shapes(path: Path) -> Shapes | None:
    """The tensors' shapes by their names; None for a pickle that does not tell.

    Raises ModelBroken, naming the file and the remedy, for a broken safetensors file.
    """
    if path.suffix != ".safetensors":
        return _of_pickle(path)
    try:
        return _of_safetensors(path)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ModelBroken(f"{path}: not a safetensors file ({error}); fetch it again") from error


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
)


_PATCH = 64  # values of a patch of the latent: 16 channels of 2 x 2
_LOOKALIKES: tuple[Callable[[Shapes], bool], ...] = (
    lambda unet: "double_stream_modulation_img.lin.weight" in unet,  # Flux 2
    lambda unet: "distilled_guidance_layer.norms.0.scale" in unet,  # Chroma
    lambda unet: unet.get("img_in.weight", (0, _PATCH))[1] != _PATCH,  # Flux fill, canny, depth
)


def _unet(shapes: Shapes) -> Shapes:
    prefix = next(p for p in _PREFIXES if any(name.startswith(p) for name in shapes) or not p)
    return {
        name.removeprefix(prefix): shape
        for name, shape in shapes.items()
        if name.startswith(prefix)
    }


def _text_width(unet: Shapes) -> int:
    if _FIRST_WEIGHT not in unet:
        return 0
    return next((shape[-1] for name, shape in unet.items() if name.endswith(_TEXT_WEIGHT)), 0)


# ---- safetensors -----------------------------------------------------------------------------


def _of_safetensors(path: Path) -> Shapes:
    with path.open("rb") as file:
        header_bytes = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        if not 0 < header_bytes <= _MAX_HEADER_BYTES:
            raise ValueError("no header")
        header: dict[str, dict[str, list[int]]] = dict(json.loads(file.read(header_bytes)))
    return {
        name: tuple(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__"
    }


# ---- pickles ---------------------------------------------------------------------------------

_UNREADABLE = (
    *(OSError, ValueError, LookupError, TypeError, AttributeError, EOFError),
    *(pickle.UnpicklingError, zipfile.BadZipFile),
)


def _of_pickle(path: Path) -> Shapes | None:
    """A checkpoint of torch.save: a zip with a pickle of the names, and the tensors beside it."""
    try:
        with zipfile.ZipFile(path) as archive:
            saved = _list_of_tensors(archive)
    except _UNREADABLE:
        return None
    shapes = {name: value.shape for name, value in saved.items() if isinstance(value, _Shape)}
    return shapes or None


def _list_of_tensors(archive: zipfile.ZipFile) -> Mapping[str, object]:
    names = {Path(name).name: name for name in archive.namelist()}
    name = names["data.pkl"]
    if archive.getinfo(name).file_size > _MAX_HEADER_BYTES:
        raise ValueError("its list of tensors is too long")
    with archive.open(name) as file:
        saved = cast("Mapping[str, object]", _ShapeUnpickler(file).load())
    return cast("Mapping[str, object]", saved.get("state_dict", saved))


class _Shape:
    """Stands for a tensor."""

    def __init__(self, shape: tuple[int, ...]):
        self.shape = shape


class _Inert(dict[object, object]):
    """Stands for everything else that a pickle names; what is done to it stays in it."""

    def __init__(self, *_: object, **__: object):
        super().__init__()

    def append(self, _: object) -> None:
        """Some are lists."""

    def __setstate__(self, _: object) -> None:
        """Some have a state."""


def _of_tensor(_storage: object, _offset: int, size: Iterable[int], *_: object) -> _Shape:
    return _Shape(tuple(size))


def _of_parameter(tensor: object, *_: object) -> object:
    return tensor


_BUILDERS = {"_rebuild_tensor_v2": _of_tensor, "_rebuild_parameter": _of_parameter}


class _ShapeUnpickler(pickle.Unpickler):
    """Builds shapes where torch's would build tensors; imports and calls nothing of the file's."""

    def find_class(self, module: str, name: str, /) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        return _BUILDERS.get(name, _Inert)

    def persistent_load(self, pid: object, /) -> None:
        """Tensors' contents are not read."""
