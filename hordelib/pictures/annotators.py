"""Annotators: what draws a control map of a picture, so that a ControlNet can follow it.

Maps are 8-bit RGB, as large as the picture. Numbers are those of the horde's other workers, so that
a request looks the same wherever it lands.
"""

from __future__ import annotations

import importlib
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from hordelib.job.control_types import ControlType
from hordelib.pictures.finite import watch

Pixels = NDArray[np.uint8]  # (height, width, 3)
Draw = Callable[[Pixels], Pixels]

CANNY_LOW, CANNY_HIGH = 100, 200  # of the gradient, 8-bit pictures
DARK = 127  # a scribble is what is darker in its darkest channel
LINE_SCORE, LINE_LENGTH = 0.15, 1.0  # M-LSD: least confidence, least length in pixels
STRIDE = 64  # pixels that each side of what networks read is a multiple of
NORMAL_DEPTH, NORMAL_BACKGROUND = math.tau, 0.05  # of MiDaS' normal map
CLASSES = 150  # of ADE20K, which the segmentation ControlNet was trained on


def draw_canny(picture: Pixels) -> Pixels:
    """White edges on black."""
    return _rgb(cv2.Canny(picture, CANNY_LOW, CANNY_HIGH))


def draw_scribble(picture: Pixels) -> Pixels:
    """A drawing of dark lines on light paper, inverted: white lines on black."""
    return _rgb(np.where(picture.min(axis=2) < DARK, 255, 0))


# Types that need no weights.
OUTLINES: Mapping[ControlType, Draw] = {
    ControlType.canny: draw_canny,
    ControlType.scribble: draw_scribble,
}


@dataclass(frozen=True, slots=True)
class Annotator:
    """A network, and what draws with it on the device that the network is on."""

    network: torch.nn.Module
    draw: Draw


def read_annotator(control: ControlType, weights: Path) -> Annotator:
    """The annotator of a type that needs weights, from their file. Nothing is downloaded.

    It raises NotNumbers where its network gives none, which its map would not show. Raises whatever
    the reading raises: a file of another network has other keys or shapes.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of controlnet_aux and timm, about names and old torch
        annotator = READERS[control](weights)
    for network in (annotator.network, *annotator.network.children()):  # LeReS calls its part
        watch(network, weights.name)
    return annotator


def draw_at_size(draw: Draw, picture: Pixels) -> Pixels:
    """The map in exactly the picture's size; networks round sizes to their strides."""
    height, width, _ = picture.shape
    drawn = _rgb(draw(picture))
    if drawn.shape[:2] == (height, width):
        return drawn
    return _rgb(cv2.resize(drawn, (width, height), interpolation=cv2.INTER_LINEAR))


def _hed(weights: Path) -> Annotator:
    return _edges(weights, scribble=False)


def _fake_scribbles(weights: Path) -> Annotator:
    return _edges(weights, scribble=True)


def _edges(weights: Path, *, scribble: bool) -> Annotator:
    hed = _module("hed")
    detector = hed.HEDdetector(_filled(hed.ControlNetHED_Apache2(), weights))
    return Annotator(
        detector.netNetwork,
        lambda picture: detector(picture, **_sizes(picture), scribble=scribble, output_type="np"),
    )


def _depth(weights: Path) -> Annotator:
    """LeReS. Its refining network is for a mode that the horde does not use."""
    leres = _module("leres")
    network = leres.RelDepthModel("resnext101")
    state = leres.strip_prefix_if_present(_tensors(weights)["depth_model"], "module.")
    network.load_state_dict(state)
    detector = leres.LeresDetector(network.eval(), None)
    return Annotator(
        network, lambda picture: detector(picture, **_sizes(picture), output_type="np")
    )


def _normal(weights: Path) -> Annotator:
    midas = _module("midas")
    model = _module("midas.midas.dpt_depth").DPTDepthModel(backbone="vitb_rn50_384")
    detector = midas.MidasDetector(_filled(model, weights))

    def draw(picture: Pixels) -> Pixels:
        settings = {"a": NORMAL_DEPTH, "bg_th": NORMAL_BACKGROUND, "depth_and_normal": True}
        with np.errstate(invalid="ignore"):  # a flat depth divides by zero, and is still flat
            return detector(picture, **settings, **_sizes(picture), output_type="np")[1]

    return Annotator(model, draw)


def _openpose(weights: Path) -> Annotator:
    """Bodies without hands and faces."""
    openpose = _module("open_pose")
    body = openpose.Body(str(weights))
    detector = openpose.OpenposeDetector(body)
    return Annotator(
        body.model, lambda picture: detector(picture, **_sizes(picture), output_type="np")
    )


def _lines(weights: Path) -> Annotator:
    mlsd = _module("mlsd")
    network = _filled(mlsd.MobileV2_MLSD_Large(), weights)

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

    return Annotator(network, draw)


def _segments(weights: Path) -> Annotator:
    """UperNet on ConvNeXt-S: every pixel in the colour of its ADE20K class."""
    from transformers import ConvNextConfig, UperNetConfig, UperNetForSemanticSegmentation

    stages = ["stage1", "stage2", "stage3", "stage4"]
    backbone = ConvNextConfig(depths=[3, 3, 27, 3], out_features=stages)
    config = UperNetConfig(backbone_config=backbone, num_labels=CLASSES)
    network = _filled(UperNetForSemanticSegmentation(config), weights)
    colours = np.array(_module("util").ade_palette(), np.uint8)

    def draw(picture: Pixels) -> Pixels:
        logits = network(_normalised(picture, next(network.parameters()))).logits
        return colours[logits[0].argmax(0).cpu().numpy()]

    return Annotator(network, draw)


READERS: Mapping[ControlType, Callable[[Path], Annotator]] = {
    ControlType.hed: _hed,
    ControlType.depth: _depth,
    ControlType.normal: _normal,
    ControlType.openpose: _openpose,
    ControlType.seg: _segments,
    ControlType.fakescribbles: _fake_scribbles,
    ControlType.hough: _lines,
    ControlType.mlsd: _lines,
}


def _module(name: str) -> Any:
    return importlib.import_module(f"controlnet_aux.{name}")


def _tensors(weights: Path) -> Any:
    return torch.load(weights, map_location="cpu", weights_only=True)


def _filled(network: Any, weights: Path) -> Any:
    """The network with the file's weights, all of them, ready to be used."""
    network.load_state_dict(_tensors(weights))
    return network.eval()


def _sizes(picture: Pixels) -> dict[str, int]:
    """Both sizes that controlnet_aux scales the shorter side to: the picture's own."""
    side = min(picture.shape[:2])
    return {"detect_resolution": side, "image_resolution": side}


def _normalised(picture: Pixels, like: torch.Tensor) -> torch.Tensor:
    """(1, 3, height, width) with ImageNet's means and deviations, as its networks expect."""
    values = (picture / 255.0 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    return torch.as_tensor(values).permute(2, 0, 1)[None].to(like)


def _rgb(drawn: NDArray[Any]) -> Pixels:
    """Any map as 8-bit RGB."""
    return np.stack([drawn] * 3, axis=2).astype(np.uint8) if drawn.ndim == 2 else drawn
