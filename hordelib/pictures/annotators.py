"""Annotators with networks: what draws a control map of a picture, for a ControlNet to follow.

Maps are 8-bit RGB, as large as the picture. Numbers are those of the horde's other workers, so that
a request looks the same wherever it lands.
"""

from __future__ import annotations

import functools
import importlib
import io
import math
import types
import warnings
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from hordelib.job.control_types import ControlType, annotator_files
from hordelib.pictures import transformer_maps
from hordelib.pictures.finite import watch
from hordelib.pictures.manga_lines import MangaLines
from hordelib.pictures.plain_maps import Draw, Pixels
from hordelib.pictures.weights import filled, read_weights, without_initial_values

LINE_SCORE, LINE_LENGTH = 0.1, 0.1  # M-LSD: least confidence, least length in pixels
STRIDE = 64  # pixels that each side of what networks read is a multiple of
NORMAL_DEPTH, NORMAL_BACKGROUND = math.tau, 0.1  # of MiDaS' normal map
TEED_STEPS = 2  # how many grey values its edges have, beside black


@dataclass(frozen=True, slots=True)
class Annotator:
    """A network, and what draws with it on the device that the network is on."""

    network: torch.nn.Module
    draw: Draw


def read_annotator(control: ControlType, weights: Path) -> Annotator:
    """The annotator of a type that needs weights, from their file. Nothing is downloaded.

    Where a type needs several files, the others lie beside the first. It raises NotNumbers where
    its network gives none, which its map would not show. Raises whatever the reading raises: a file
    of another network has other keys or shapes.
    """
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), without_initial_values():
        warnings.simplefilter("ignore")  # of controlnet_aux and timm, about names and old torch
        network, draw = READERS[control](*annotator_files(control, weights))
    for part in (network, *network.children()):  # LeReS calls its part
        watch(part, weights.name)
    return Annotator(network, draw)


def draw_at_size(draw: Draw, picture: Pixels) -> Pixels:
    """The map in exactly the picture's size; networks round sizes to their strides."""
    height, width, _ = picture.shape
    drawn = _rgb(draw(picture))
    if drawn.shape[:2] == (height, width):
        return drawn
    return _rgb(cv2.resize(drawn, (width, height), interpolation=cv2.INTER_LINEAR))


Reader = Callable[..., tuple[torch.nn.Module, Draw]]


def _hed(weights: Path, **options: bool) -> tuple[torch.nn.Module, Draw]:
    hed = _module("hed")
    detector = hed.HEDdetector(filled(hed.ControlNetHED_Apache2(), weights))
    return detector.netNetwork, _drawing(detector, safe=True, **options)


def _fake_scribbles(weights: Path) -> tuple[torch.nn.Module, Draw]:
    return _hed(weights, scribble=True)


def _depth(weights: Path) -> tuple[torch.nn.Module, Draw]:
    """LeReS. Its refining network is for a mode that the horde does not use."""
    leres = _module("leres")
    network = leres.RelDepthModel("resnext101")
    state = leres.strip_prefix_if_present(read_weights(weights)["depth_model"], "module.")
    network.load_state_dict(state)
    return network, _drawing(leres.LeresDetector(network.eval(), None))


def _midas(weights: Path, *, normal: bool) -> tuple[torch.nn.Module, Draw]:
    midas = _module("midas")
    network = filled(
        _module("midas.midas.dpt_depth").DPTDepthModel(backbone="vitb_rn50_384"), weights
    )
    settings = {"a": NORMAL_DEPTH, "bg_th": NORMAL_BACKGROUND, "depth_and_normal": True}
    detect = _drawing(midas.MidasDetector(network), **settings)

    def draw(picture: Pixels) -> Pixels:
        with np.errstate(invalid="ignore"):  # a flat depth divides by zero, and is still flat
            return detect(picture)[int(normal)]

    return network, draw


def _normal(weights: Path) -> tuple[torch.nn.Module, Draw]:
    return _midas(weights, normal=True)


def _midas_depth(weights: Path) -> tuple[torch.nn.Module, Draw]:
    return _midas(weights, normal=False)


def _normal_bae(weights: Path) -> tuple[torch.nn.Module, Draw]:
    bae = _module("normalbae")
    settings = types.SimpleNamespace(
        mode="client", architecture="BN", sampling_ratio=0.4, importance_ratio=0.7
    )
    network = filled(bae.NNET(settings), weights, "model")
    return network, _drawing(bae.NormalBaeDetector(network))


def _openpose(body: Path, hand: Path, face: Path) -> tuple[torch.nn.Module, Draw]:
    """Bodies with hands and faces."""
    openpose = _module("open_pose")
    parts = openpose.Body(str(body)), openpose.Hand(str(hand)), openpose.Face(str(face))
    detect = _drawing(openpose.OpenposeDetector(*parts), include_hand=True, include_face=True)
    return torch.nn.ModuleList(part.model for part in parts).eval(), detect


def _lines(weights: Path) -> tuple[torch.nn.Module, Draw]:
    mlsd = _module("mlsd")
    network = filled(mlsd.MobileV2_MLSD_Large(), weights)

    def draw(picture: Pixels) -> Pixels:
        canvas = np.zeros_like(picture)
        size = [STRIDE * math.ceil(side / STRIDE) for side in picture.shape[:2]]
        try:
            lines = mlsd.pred_lines(picture, network, size, LINE_SCORE, LINE_LENGTH)
        except IndexError:  # it indexes into what it found, even where that is nothing
            return canvas
        for left, top, right, bottom in lines.astype(int).tolist():
            cv2.line(canvas, (left, top), (right, bottom), (255, 255, 255), 1)
        return canvas

    return network, draw


def _line_art(weights: Path) -> tuple[torch.nn.Module, Draw]:
    """Its network for coarse lines is for a mode that the horde does not use."""
    lineart = _module("lineart")
    network = filled(lineart.Generator(3, 1, 3), weights)
    return network, _drawing(lineart.LineartDetector(network, None))


def _anime_lines(weights: Path) -> tuple[torch.nn.Module, Draw]:
    anime = _module("lineart_anime")
    norm = functools.partial(torch.nn.InstanceNorm2d, affine=False)  # its biases depend on the type
    network = filled(anime.UnetGenerator(3, 1, 8, 64, norm_layer=norm), weights)
    return network, _drawing(anime.LineartAnimeDetector(network))


def _manga_lines(weights: Path) -> tuple[torch.nn.Module, Draw]:
    network = filled(MangaLines(), weights)

    def draw(picture: Pixels) -> Pixels:
        height, width = (STRIDE * math.ceil(side / STRIDE) for side in picture.shape[:2])
        grey = cv2.cvtColor(
            cv2.resize(picture, (width, height), interpolation=cv2.INTER_CUBIC),
            cv2.COLOR_RGB2GRAY,
        )
        paper = network(torch.as_tensor(grey)[None, None].to(next(network.parameters())))
        return (255 - paper[0, 0].clamp(0, 255)).byte().cpu().numpy()

    return network, draw


def _pidinet(weights: Path, **options: bool) -> tuple[torch.nn.Module, Draw]:
    pidi = _module("pidi")
    network = filled(pidi.pidinet(), weights, "state_dict")
    return network, _drawing(pidi.PidiNetDetector(network), safe=True, **options)


def _pidinet_scribbles(weights: Path) -> tuple[torch.nn.Module, Draw]:
    return _pidinet(weights, scribble=True)


def _teed(weights: Path) -> tuple[torch.nn.Module, Draw]:
    teed = _module("teed")
    network = filled(teed.TED(), weights)
    detector = teed.TEEDdetector(network)

    def draw(picture: Pixels) -> Pixels:
        return detector(picture, min(picture.shape[:2]), safe_steps=TEED_STEPS, output_type="np")

    return network, draw


READERS: Mapping[ControlType, Reader] = {
    ControlType.hed: _hed,
    ControlType.depth: _depth,
    ControlType.normal: _normal,
    ControlType.openpose: _openpose,
    ControlType.seg: transformer_maps.read_upernet,
    ControlType.fakescribbles: _fake_scribbles,
    ControlType.hough: _lines,
    ControlType.mlsd: _lines,
    ControlType.depth_anything: transformer_maps.read_depth_anything,
    ControlType.depth_anything_v2: transformer_maps.read_depth_anything_v2,
    ControlType.lineart: _line_art,
    ControlType.lineart_anime: _anime_lines,
    ControlType.lineart_anime_denoise: _manga_lines,
    ControlType.midas_depth: _midas_depth,
    ControlType.normal_bae: _normal_bae,
    ControlType.oneformer_ade20k: transformer_maps.read_oneformer_ade20k,
    ControlType.oneformer_coco: transformer_maps.read_oneformer_coco,
    ControlType.pidinet: _pidinet,
    ControlType.scribble_pidinet: _pidinet_scribbles,
    ControlType.teed: _teed,
    ControlType.zoe_depth: transformer_maps.read_zoe,
}


def _drawing(detector: Callable[..., Any], **settings: object) -> Callable[[Pixels], Any]:
    """What controlnet_aux draws; it scales the shorter side to both sizes: the picture's own."""

    def draw(picture: Pixels) -> Any:
        side = min(picture.shape[:2])
        sizes = {"detect_resolution": side, "image_resolution": side}
        return detector(picture, **sizes, **settings, output_type="np")

    return draw


def _module(name: str) -> Any:
    return importlib.import_module(f"controlnet_aux.{name}")


def _rgb(drawn: NDArray[Any]) -> Pixels:
    """Any map as 8-bit RGB."""
    return np.stack([drawn] * 3, axis=2).astype(np.uint8) if drawn.ndim == 2 else drawn
