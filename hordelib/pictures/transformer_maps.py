"""Annotators whose networks are in transformers: depths, and what every pixel shows.

A file holds weights alone. How large its network is, their shapes tell; what the shapes don't tell
is the same in every size that its authors trained.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hordelib.pictures.plain_maps import Draw, Pixels
from hordelib.pictures.weights import read_weights

State = Mapping[str, Tensor]
Read = tuple[torch.nn.Module, Draw]

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # means and deviations of its pictures
HALVES = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
MOST_STRETCH = 4  # times as many pixels as a square one, a long picture may have: attention is dear
HEAD_WIDTH, SWIN_HEAD_WIDTH = 64, 32  # channels of an attention head
ADE20K_CLASSES = 150
ADE20K_SIDES, COCO_SIDES = (640, 2560), (800, 1333)  # pixels that OneFormer scales a picture to
NEAREST, FARTHEST = 2, 85  # percentiles of ZoeDepth's depths that are white and black


# ---- depths ----------------------------------------------------------------------------------


def read_depth_anything(weights: Path) -> Read:
    return _depth_anything(read_weights(weights), last_layers=True)


def read_depth_anything_v2(weights: Path) -> Read:
    return _depth_anything(_renamed(read_weights(weights)), last_layers=False)


def _depth_anything(state: State, *, last_layers: bool) -> Read:
    """The first version reads its encoder's last four layers, the second some from all over."""
    layers = count(state, "backbone.encoder.layer.{}.norm1.weight")
    width, side = _width(state, "backbone.embeddings.cls_token"), 14
    points = state["backbone.embeddings.position_embeddings"].shape[1] - 1
    transformers = _transformers()
    backbone = transformers.Dinov2Config(
        image_size=math.isqrt(points) * side,
        patch_size=side,
        hidden_size=width,
        num_attention_heads=width // HEAD_WIDTH,
        num_hidden_layers=layers,
        out_indices=range(layers - 3, layers + 1) if last_layers else _quarters(layers),
        reshape_hidden_states=False,
    )
    config = transformers.DepthAnythingConfig(
        backbone_config=backbone,
        patch_size=side,
        reassemble_hidden_size=width,
        neck_hidden_sizes=_neck(state),
        fusion_hidden_size=state["neck.convs.0.weight"].shape[0],
    )
    network = built(transformers.DepthAnythingForDepthEstimation, config, state)

    def draw(picture: Pixels) -> Pixels:
        asked = _scaled(picture, backbone.image_size, side, IMAGENET, network)
        depth = network(asked).predicted_depth[0].float().cpu().numpy()
        near, far = float(depth.max()), float(depth.min())
        return _grey((depth - far) / max(near - far, 1e-6))

    return network, draw


def _quarters(layers: int) -> list[int]:
    return [5, 12, 18, 24] if layers == 24 else [layers * i // 4 for i in range(1, 5)]


# How the names of Depth Anything's own files begin, and those of transformers.
_RENAMED = {
    "pretrained.cls_token": "backbone.embeddings.cls_token",
    "pretrained.mask_token": "backbone.embeddings.mask_token",
    "pretrained.pos_embed": "backbone.embeddings.position_embeddings",
    "pretrained.patch_embed.proj": "backbone.embeddings.patch_embeddings.projection",
    "pretrained.norm": "backbone.layernorm",
    "pretrained.blocks": "backbone.encoder.layer",
    ".attn.proj": ".attention.output.dense",
    ".ls1.gamma": ".layer_scale1.lambda1",
    ".ls2.gamma": ".layer_scale2.lambda1",
    "depth_head.scratch.output_conv1": "head.conv1",
    "depth_head.scratch.output_conv2.0": "head.conv2",
    "depth_head.scratch.output_conv2.2": "head.conv3",
    ".out_conv": ".projection",
    ".resConfUnit": ".residual_layer",
    **{
        old.format(i): new.format(i)
        for i in range(4)
        for old, new in (
            ("depth_head.projects.{}", "neck.reassemble_stage.layers.{}.projection"),
            ("depth_head.resize_layers.{}", "neck.reassemble_stage.layers.{}.resize"),
        )
    },
    **{f"depth_head.scratch.layer{i + 1}_rn": f"neck.convs.{i}" for i in range(4)},
    **{f"depth_head.scratch.refinenet{4 - i}": f"neck.fusion_stage.layers.{i}" for i in range(4)},
}
_JOINED = ".attn.qkv."


def _renamed(state: State) -> State:
    renamed: dict[str, Tensor] = {}
    for name, value in state.items():
        for old, new in _RENAMED.items():
            name = name.replace(old, new)
        if name.startswith("neck.fusion_stage"):
            name = name.replace(".conv", ".convolution")
        if _JOINED in name:
            parts = zip(("query", "key", "value"), value.chunk(3), strict=True)
            renamed |= {name.replace(_JOINED, f".attention.attention.{p}."): v for p, v in parts}
        else:
            renamed[name] = value
    return renamed


def read_zoe(weights: Path) -> Read:
    """ZoeDepth with its heads for rooms and for streets, between which it chooses itself."""
    state = read_weights(weights)
    encoder = "backbone.encoder.layer.{}"
    layers = count(state, f"{encoder}.lambda_1")
    width, patch = _width(state, "backbone.embeddings.cls_token"), 16
    bias = f"{encoder}.attention.attention.relative_position_bias.relative_position_bias_table"
    biases = state[bias.format(0)]
    window = (math.isqrt(biases.shape[0] - 3) + 1) // 2  # beside it, three biases of the class
    transformers = _transformers()
    backbone = transformers.BeitConfig(
        image_size=window * patch,
        patch_size=patch,
        hidden_size=width,
        intermediate_size=state[f"{encoder}.intermediate.dense.bias".format(0)].shape[0],
        num_attention_heads=biases.shape[1],
        num_hidden_layers=layers,
        out_indices=[layers * i // 4 for i in range(1, 5)],
        use_relative_position_bias=True,
        reshape_hidden_states=False,
    )
    depths = (("nyu", 10.0), ("kitti", 80.0))
    config = transformers.ZoeDepthConfig(
        backbone_config=backbone,
        neck_hidden_sizes=_neck(state),
        bin_configurations=[
            {"name": name, "n_bins": 64, "min_depth": 1e-3, "max_depth": most}
            for name, most in depths
        ],
        num_patch_transformer_layers=4,
        patch_transformer_hidden_size=128,
        patch_transformer_intermediate_size=1024,
        patch_transformer_num_attention_heads=4,
    )
    network = built(transformers.ZoeDepthForDepthEstimation, config, state)

    def draw(picture: Pixels) -> Pixels:
        asked = _scaled(picture, backbone.image_size, 2 * patch, HALVES, network)
        depth = network(asked).predicted_depth[0].float().cpu().numpy()
        near, far = (float(np.percentile(depth, share)) for share in (NEAREST, FARTHEST))
        return _grey(1.0 - (depth - near) / max(far - near, 1e-6))

    return network, draw


# ---- what every pixel shows ------------------------------------------------------------------


def read_upernet(weights: Path) -> Read:
    """UperNet on ConvNeXt-S: every pixel in the colour of its ADE20K class."""
    transformers = _transformers()
    stages = ["stage1", "stage2", "stage3", "stage4"]
    backbone = transformers.ConvNextConfig(depths=[3, 3, 27, 3], out_features=stages)
    config = transformers.UperNetConfig(backbone_config=backbone, num_labels=ADE20K_CLASSES)
    network = built(transformers.UperNetForSemanticSegmentation, config, read_weights(weights))
    colours = np.array(_ade20k_colours(), np.uint8)

    def draw(picture: Pixels) -> Pixels:
        logits = network(_normalised(picture, IMAGENET, network)).logits
        return colours[logits[0].argmax(0).cpu().numpy()]

    return network, draw


def read_oneformer_ade20k(weights: Path) -> Read:
    return _oneformer(weights, *ADE20K_SIDES)


def read_oneformer_coco(weights: Path) -> Read:
    return _oneformer(weights, *COCO_SIDES)


# "the task is semantic" in CLIP's tokens; the rest of what the network reads is 0.
SEMANTIC_TASK = (49406, 518, 10549, 533, 29119, 1550, 49407)
TASK_LENGTH = 77


def _oneformer(weights: Path, shorter: int, longer: int) -> Read:
    """OneFormer on a Swin transformer; pictures are scaled to at most these sides, in pixels."""
    state = read_weights(weights)
    swin = "model.pixel_level_module.encoder.encoder.layers.{}.blocks.{{}}"
    index = ".attention.self.relative_position_bias_table"
    depths = [count(state, swin.format(i) + index) for i in range(4)]
    widths = [state[swin.format(i).format(0) + index].shape for i in range(4)]
    transformers = _transformers()
    backbone = transformers.SwinConfig(
        image_size=384,
        embed_dim=widths[0][1] * SWIN_HEAD_WIDTH,
        depths=depths,
        num_heads=[heads for _, heads in widths],
        window_size=(math.isqrt(widths[0][0]) + 1) // 2,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    classes = "model.transformer_module.decoder.class_embed.weight"
    config = transformers.OneFormerConfig(
        backbone_config=backbone,
        num_queries=state["model.transformer_module.queries_embedder.weight"].shape[0],
        num_labels=state[classes].shape[0] - 1,  # the last one is: nothing
        is_training=False,
    )
    network = built(transformers.OneFormerForUniversalSegmentation, config, state, unused=_TRAINING)
    task = [*SEMANTIC_TASK, *[0] * (TASK_LENGTH - len(SEMANTIC_TASK))]
    colours = golden_colours(config.num_labels)

    def draw(picture: Pixels) -> Pixels:
        height, width = picture.shape[:2]
        scale = min(shorter / min(height, width), longer / max(height, width))
        size = round(width * scale), round(height * scale)
        small = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR), np.uint8)
        asked = _normalised(small, IMAGENET, network)
        found = network(asked, torch.tensor([task], device=asked.device))
        kinds = found.class_queries_logits[0].float().softmax(-1)[:, :-1]
        places = found.masks_queries_logits[0].float().sigmoid()
        shares = torch.einsum("qc,qhw->chw", kinds, places).cpu().numpy()
        return colours[_strongest(shares, (width, height))]

    return network, draw


_TRAINING = ("criterion.", "model.text_mapper.")  # names of what only training computes with


def _strongest(shares: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.intp]:
    """(classes, h, w) to the class of every pixel at `size` (width, height), one after the other:
    all of them at that size would take hundreds of megabytes."""
    best = np.full(size[::-1], -np.inf, np.float32)
    found = np.zeros(size[::-1], np.intp)
    for number, share in enumerate(shares):
        grown = np.asarray(cv2.resize(share, size, interpolation=cv2.INTER_LINEAR), np.float32)
        is_more = grown > best
        best[is_more], found[is_more] = grown[is_more], number
    return found


def golden_colours(classes: int) -> Pixels:
    """Black for the first class, then hues a golden angle apart, as other workers colour them.

    Saturation goes round in three steps, brightness in two. (classes, 3).
    """
    numbers = np.arange(classes)
    hue = numbers * 137.508 % 360 / 2  # OpenCV's unit is two degrees
    saturation = 255 * (0.6 + 0.2 * (numbers % 3))
    value = 255 * (0.7 + 0.3 * (numbers % 2))
    hsv = np.stack([hue, saturation, value], axis=-1).astype(np.uint8)
    colours = np.asarray(cv2.cvtColor(hsv[None], cv2.COLOR_HSV2RGB)[0], np.uint8)
    colours[0] = 0
    return colours


def _ade20k_colours() -> Any:
    return importlib.import_module("controlnet_aux.util").ade_palette()


# ---- networks and their pictures -------------------------------------------------------------


def _transformers() -> Any:
    return importlib.import_module("transformers")


def built(kind: Any, config: Any, state: State, unused: Iterable[str] = ()) -> Any:
    """The network of a configuration with all of its weights, and no other ones.

    Names that begin as `unused` says may be missing, or too many.
    """
    network = kind(config)
    found = network.load_state_dict(state, strict=False)
    names = [*found.missing_keys, *found.unexpected_keys]
    wrong = [name for name in names if not name.startswith(tuple(unused))]
    wrong = [name for name in wrong if not name.endswith("relative_position_index")]
    if wrong:
        raise ValueError(f"weights of another network: {', '.join(wrong[:3])}")
    return network.eval()


def count(state: State, name: str) -> int:
    """How many there are, from 0, of names with a number in them."""
    number = 0
    while name.format(number) in state:
        number += 1
    return number


def _width(state: State, name: str) -> int:
    return state[name].shape[-1]


def _neck(state: State) -> list[int]:
    name = "neck.reassemble_stage.layers.{}.projection.weight"
    return [state[name.format(i)].shape[0] for i in range(4)]


def _scaled(
    picture: Pixels,
    shorter: int,
    step: int,
    norm: tuple[tuple[float, ...], tuple[float, ...]],
    network: torch.nn.Module,
) -> Tensor:
    """The picture with about that shorter side, in pixels; both are multiples of `step`.

    Less for long ones, so that no picture takes more than MOST_STRETCH times as a square one does.
    """
    height, width, _ = picture.shape
    most = math.sqrt(MOST_STRETCH * shorter**2 / (height * width))
    scale = min(shorter / min(height, width), most)
    size = [max(step, round(side * scale / step) * step) for side in (width, height)]
    small = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC), np.uint8)
    return _normalised(small, norm, network)


def _normalised(
    picture: Pixels, norm: tuple[tuple[float, ...], tuple[float, ...]], network: torch.nn.Module
) -> Tensor:
    """(1, 3, height, width), where the network is."""
    means, deviations = norm
    values = (picture / 255.0 - means) / deviations
    return torch.as_tensor(values).permute(2, 0, 1)[None].to(next(network.parameters()))


def _grey(values: NDArray[np.floating[Any]]) -> Pixels:
    """0 to 1, height by width, in 8 bits."""
    return (255.0 * values.clip(0, 1)).astype(np.uint8)
