"""The horde's control types: what draws the map of each, and the ControlNet that follows it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from hordelib.job import control_weights as files
from hordelib.job.control_weights import Weights, may_have_size

FOLDER = "controlnet"  # in the models' folder: the ControlNets,
ANNOTATORS = "annotators"  # and, one level deeper, the weights of the annotators
DIFFERENCE = "diff_"  # how the name of a ControlNet begins that holds differences to a base model


class ControlType(StrEnum):
    """The horde's names (swagger: control_type). The first nine are those that it began with."""

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
    binary = "binary"
    color = "color"
    depth_anything = "depth_anything"
    depth_anything_v2 = "depth_anything_v2"
    lineart = "lineart"
    lineart_anime = "lineart_anime"
    lineart_anime_denoise = "lineart_anime_denoise"
    midas_depth = "midas_depth"
    normal_bae = "normal_bae"
    oneformer_ade20k = "oneformer_ade20k"
    oneformer_coco = "oneformer_coco"
    pidinet = "pidinet"
    pyracanny = "pyracanny"
    recolor_intensity = "recolor_intensity"
    recolor_luminance = "recolor_luminance"
    scribble_pidinet = "scribble_pidinet"
    scribble_xdog = "scribble_xdog"
    shuffle = "shuffle"
    standard_lineart = "standard_lineart"
    teed = "teed"
    tile = "tile"
    tile_ttplanet_guided = "tile_ttplanet_guided"
    tile_ttplanet_simple = "tile_ttplanet_simple"
    zoe_depth = "zoe_depth"


@dataclass(frozen=True, slots=True)
class ControlRow:
    """What serves one control type. One without weights is drawn by plain arithmetic."""

    control_net: Weights
    weights: tuple[Weights, ...] = ()  # of the annotator; the reader is given the first one
    is_seeded: bool = False  # whether the annotator draws another map for each seed


CONTROL_TYPES = {
    ControlType.canny: ControlRow(files.CANNY_NET),
    ControlType.hed: ControlRow(files.HED_NET, (files.HED,)),
    ControlType.depth: ControlRow(files.DEPTH_NET, (files.LERES,)),
    ControlType.normal: ControlRow(files.NORMAL_NET, (files.MIDAS,)),
    ControlType.openpose: ControlRow(files.OPENPOSE_NET, files.OPENPOSE),
    ControlType.seg: ControlRow(files.SEG_NET, (files.UPERNET,)),
    ControlType.scribble: ControlRow(files.SCRIBBLE_NET),
    ControlType.fakescribbles: ControlRow(files.SCRIBBLE_NET, (files.HED,)),
    ControlType.hough: ControlRow(files.MLSD_NET, (files.MLSD,)),
    ControlType.mlsd: ControlRow(files.MLSD_NET, (files.MLSD,)),
    ControlType.binary: ControlRow(files.SCRIBBLE_NET),
    ControlType.color: ControlRow(files.COLOR_ADAPTER),
    ControlType.depth_anything: ControlRow(files.DEPTH_NET, (files.DEPTH_ANYTHING,)),
    ControlType.depth_anything_v2: ControlRow(files.DEPTH_NET, (files.DEPTH_ANYTHING_V2,)),
    ControlType.lineart: ControlRow(files.LINE_ART_NET, (files.LINE_ART,)),
    ControlType.lineart_anime: ControlRow(files.ANIME_NET, (files.ANIME_LINES,)),
    ControlType.lineart_anime_denoise: ControlRow(files.ANIME_NET, (files.MANGA_LINES,)),
    ControlType.midas_depth: ControlRow(files.DEPTH_NET, (files.MIDAS,)),
    ControlType.normal_bae: ControlRow(files.NORMAL_BAE_NET, (files.NORMAL_BAE,)),
    ControlType.oneformer_ade20k: ControlRow(files.SEG_NET, (files.ONEFORMER_ADE20K,)),
    ControlType.oneformer_coco: ControlRow(files.SEG_NET, (files.ONEFORMER_COCO,)),
    ControlType.pidinet: ControlRow(files.HED_NET, (files.PIDINET,)),
    ControlType.pyracanny: ControlRow(files.CANNY_NET),
    ControlType.recolor_intensity: ControlRow(files.RECOLOR_NET),
    ControlType.recolor_luminance: ControlRow(files.RECOLOR_NET),
    ControlType.scribble_pidinet: ControlRow(files.SCRIBBLE_NET, (files.PIDINET,)),
    ControlType.scribble_xdog: ControlRow(files.SCRIBBLE_NET),
    ControlType.shuffle: ControlRow(files.SHUFFLE_NET, is_seeded=True),
    ControlType.standard_lineart: ControlRow(files.LINE_ART_NET),
    ControlType.teed: ControlRow(files.HED_NET, (files.TEED,)),
    ControlType.tile: ControlRow(files.TILE_NET),
    ControlType.tile_ttplanet_guided: ControlRow(files.TILE_NET),
    ControlType.tile_ttplanet_simple: ControlRow(files.TILE_NET),
    ControlType.zoe_depth: ControlRow(files.DEPTH_NET, (files.ZOE,)),
}

# The horde has a flag for each of these groups, and hands out every type of one.
_ALL = tuple(ControlType)
CLASSIC, EXTENDED = _ALL[: _ALL.index(ControlType.mlsd)], _ALL[_ALL.index(ControlType.mlsd) :]


@dataclass(frozen=True, slots=True)
class ControlFile:
    """A file that a control type needs, and where it belongs."""

    weights: Weights
    path: Path

    @property
    def is_there(self) -> bool:
        """Whether something is that may be it; one without sha256 has at least the right size."""
        if not self.path.is_file():
            return False
        if not self.weights.is_known_by_size:
            return True
        return may_have_size(self.path.stat().st_size, self.weights.size_bytes)


def control_net_file(models: Path, control: ControlType) -> Path:
    """Where the ControlNet of a type is looked for below the models' folder."""
    return models / FOLDER / CONTROL_TYPES[control].control_net.file


def annotator_file(models: Path, control: ControlType) -> Path | None:
    """Where the weights of a type's annotator are looked for; None where it needs none.

    Where it needs several files, this is the first of `annotator_files`; the others lie beside it.
    """
    weights = CONTROL_TYPES[control].weights
    return models / FOLDER / ANNOTATORS / weights[0].file if weights else None


def annotator_files(control: ControlType, first: Path) -> tuple[Path, ...]:
    """All files of a type's annotator, of which the first one is there."""
    return first, *(first.with_name(each.file) for each in CONTROL_TYPES[control].weights[1:])


def files_of(
    models: Path, control: ControlType, *, net: bool = True, annotator: bool = True
) -> tuple[ControlFile, ...]:
    """What a type needs: its ControlNet (to steer a picture) and its annotator (to draw a map)."""
    row, folder = CONTROL_TYPES[control], models / FOLDER
    nets = [ControlFile(row.control_net, folder / row.control_net.file)] if net else []
    drawing = row.weights if annotator else ()
    return *nets, *(ControlFile(each, folder / ANNOTATORS / each.file) for each in drawing)


def files_of_all(models: Path, controls: Iterable[ControlType]) -> tuple[ControlFile, ...]:
    """What these types need, each file once."""
    return tuple(dict.fromkeys(file for each in controls for file in files_of(models, each)))
