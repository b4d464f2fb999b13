"""The horde's control types: what draws the map of each, and the ControlNet that follows it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

FOLDER = "controlnet"  # in the models' folder: the ControlNets,
ANNOTATORS = "annotators"  # and, one level deeper, the weights of the annotators
DIFFERENCE = "diff_"  # how the name of a ControlNet begins that holds differences to a base model


class ControlType(StrEnum):
    """The horde's names (swagger: control_type)."""

    canny = "canny"
    hed = "hed"
    depth = "depth"
    normal = "normal"
    openpose = "openpose"
    seg = "seg"
    scribble = "scribble"
    fakescribbles = "fakescribbles"
    hough = "hough"
    mlsd = "mlsd"


@dataclass(frozen=True, slots=True)
class Weights:
    """The weights of a network: one file, where it comes from, and the hash of what is in it.

    `size_bytes` is 0 where it is not known.
    """

    file: str
    url: str
    sha256: str
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class ControlRow:
    """What serves one control type. A type without weights is drawn by plain arithmetic."""

    control_net: str  # its name in the horde's model reference
    weights: Weights | None = None


def _annotator(file: str, sha256: str) -> Weights:
    """A file of the collection that ControlNet's author keeps for all annotators."""
    url = f"https://huggingface.co/lllyasviel/Annotators/resolve/main/{file}"
    return Weights(file, url, sha256)


_HED = _annotator(
    "ControlNetHED.pth", "5ca93762ffd68a29fee1af9d495bf6aab80ae86f08905fb35472a083a4c7a8fa"
)
_LERES = _annotator(
    "res101.pth", "1d696b2ef3e8336b057d0c15bc82d2fecef821bfebe5ef9d7671a5ec5dde520b"
)
_MIDAS = _annotator(
    "dpt_hybrid-midas-501f0c75.pt",
    "501f0c75b3bca7daec6b3682c5054c09b366765aef6fa3a09d03a5cb4b230853",
)
_OPENPOSE = _annotator(
    "body_pose_model.pth", "25a948c16078b0f08e236bda51a385d855ef4c153598947c28c0d47ed94bb746"
)
_MLSD = _annotator(
    "mlsd_large_512_fp32.pth", "5696f168eb2c30d4374bbfd45436f7415bb4d88da29bea97eea0101520fba082"
)
_UPERNET = Weights(
    "upernet-convnext-small.bin",
    "https://huggingface.co/openmmlab/upernet-convnext-small/resolve/main/pytorch_model.bin",
    "76c163aa531ab7edfb3a77bbcc039e340645aa0ffe2b0ffcfc68755f550c76ea",
)

CONTROL_TYPES = {
    ControlType.canny: ControlRow("diff_control_sd15_canny_fp16"),
    ControlType.hed: ControlRow("diff_control_sd15_hed_fp16", _HED),
    ControlType.depth: ControlRow("diff_control_sd15_depth_fp16", _LERES),
    ControlType.normal: ControlRow("control_normal_fp16", _MIDAS),
    ControlType.openpose: ControlRow("control_openpose_fp16", _OPENPOSE),
    ControlType.seg: ControlRow("control_seg_fp16", _UPERNET),
    ControlType.scribble: ControlRow("control_scribble_fp16"),
    ControlType.fakescribbles: ControlRow("control_scribble_fp16", _HED),
    ControlType.hough: ControlRow("control_mlsd_fp16", _MLSD),
    ControlType.mlsd: ControlRow("control_mlsd_fp16", _MLSD),
}


def control_net_file(models: Path, control: ControlType) -> Path:
    """Where the ControlNet of a type is looked for below the models' folder."""
    return models / FOLDER / f"{CONTROL_TYPES[control].control_net}.safetensors"


def annotator_file(models: Path, control: ControlType) -> Path | None:
    """Where the weights of a type's annotator are looked for; None where it needs none."""
    weights = CONTROL_TYPES[control].weights
    return models / FOLDER / ANNOTATORS / weights.file if weights else None


def missing_files(models: Path) -> dict[ControlType, tuple[Path, ...]]:
    """What is not on disk, for every type; a type with nothing missing can be served."""
    return {control: _missing(models, control) for control in ControlType}


def files(models: Path) -> frozenset[Path]:
    """Where all of them are looked for."""
    return frozenset(path for control in ControlType for path in _wanted(models, control))


def _missing(models: Path, control: ControlType) -> tuple[Path, ...]:
    return tuple(path for path in _wanted(models, control) if not path.is_file())


def _wanted(models: Path, control: ControlType) -> Iterator[Path]:
    yield control_net_file(models, control)
    if (annotator := annotator_file(models, control)) is not None:
        yield annotator
