"""Random weights in the layout of each annotator's file; of large networks, small ones."""

from __future__ import annotations

import functools
import importlib
import io
import types
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch

from hordelib.job.control_types import CONTROL_TYPES, ControlType
from hordelib.pictures.manga_lines import MangaLines
from hordelib.pictures.weights import without_initial_values


def _state(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Its weights, small ones at random."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.uniform_(-0.05, 0.05)
    return network.state_dict()


def _module(name: str) -> Any:
    return importlib.import_module(f"controlnet_aux.{name}")


def _transformers() -> Any:
    return importlib.import_module("transformers")


def _hed() -> Any:
    return _state(_module("hed").ControlNetHED_Apache2())


def _leres() -> Any:
    return {"depth_model": _state(_module("leres").RelDepthModel("resnext101"))}


def _midas() -> Any:
    return _state(_module("midas.midas.dpt_depth").DPTDepthModel(backbone="vitb_rn50_384"))


def _without_blocks(network: Any) -> Any:
    """OpenPose's files name layers without their blocks, as the framework did they came from."""
    return {key.split(".", 1)[1]: value for key, value in _state(network).items()}


def _body() -> Any:
    return _without_blocks(_module("open_pose.model").bodypose_model())


def _hand() -> Any:
    return _without_blocks(_module("open_pose.model").handpose_model())


def _face() -> Any:
    return _state(_module("open_pose.face").FaceNet())


def _upernet() -> Any:
    transformers = _transformers()
    stages = ["stage1", "stage2", "stage3", "stage4"]
    backbone = transformers.ConvNextConfig(depths=[3, 3, 27, 3], out_features=stages)
    config = transformers.UperNetConfig(backbone_config=backbone, num_labels=150)
    return _state(transformers.UperNetForSemanticSegmentation(config))


def _mlsd() -> Any:
    return _state(_module("mlsd").MobileV2_MLSD_Large())


def _line_art() -> Any:
    return _state(_module("lineart").Generator(3, 1, 3))


def _anime_lines() -> Any:
    """Saved from several cards."""
    norm = functools.partial(torch.nn.InstanceNorm2d, affine=False, track_running_stats=False)
    network = _module("lineart_anime").UnetGenerator(3, 1, 8, 64, norm_layer=norm)
    return {f"module.{name}": value for name, value in _state(network).items()}


def _pidinet() -> Any:
    state = _state(_module("pidi").pidinet())
    return {"state_dict": {f"module.{name}": value for name, value in state.items()}}


def _teed() -> Any:
    return _state(_module("teed").TED())


def _normal_bae() -> Any:
    settings = types.SimpleNamespace(architecture="BN", sampling_ratio=0.4, importance_ratio=0.7)
    return {"model": _state(_module("normalbae").NNET(settings))}


WIDTH, LAYERS, NECK, FUSED = 64, 4, (16, 32, 64, 64), 16  # of a small vision transformer


def _depth_anything() -> Any:
    transformers = _transformers()
    backbone = transformers.Dinov2Config(
        image_size=56,
        patch_size=14,
        hidden_size=WIDTH,
        num_attention_heads=1,
        num_hidden_layers=LAYERS,
        out_indices=[1, 2, 3, 4],
        reshape_hidden_states=False,
    )
    config = transformers.DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=WIDTH,
        neck_hidden_sizes=NECK,
        fusion_hidden_size=FUSED,
    )
    return _state(transformers.DepthAnythingForDepthEstimation(config))


def depth_anything_v2() -> dict[str, torch.Tensor]:
    """With the names of its authors' own file, written from their network's classes."""
    shapes: dict[str, tuple[int, ...]] = {
        "pretrained.cls_token": (1, 1, WIDTH),
        "pretrained.pos_embed": (1, 17, WIDTH),
        "pretrained.mask_token": (1, WIDTH),
        **_layer("pretrained.patch_embed.proj", WIDTH, 3, 14, 14),
        **_layer("pretrained.norm", WIDTH),
        **_layer("depth_head.scratch.output_conv1", FUSED // 2, FUSED, 3, 3),
        **_layer("depth_head.scratch.output_conv2.0", 32, FUSED // 2, 3, 3),
        **_layer("depth_head.scratch.output_conv2.2", 1, 32, 1, 1),
    }
    for i in range(LAYERS):
        block = f"pretrained.blocks.{i}"
        shapes |= {
            **_layer(f"{block}.norm1", WIDTH),
            **_layer(f"{block}.norm2", WIDTH),
            **_layer(f"{block}.attn.qkv", 3 * WIDTH, WIDTH),
            **_layer(f"{block}.attn.proj", WIDTH, WIDTH),
            **_layer(f"{block}.mlp.fc1", 4 * WIDTH, WIDTH),
            **_layer(f"{block}.mlp.fc2", WIDTH, 4 * WIDTH),
            f"{block}.ls1.gamma": (WIDTH,),
            f"{block}.ls2.gamma": (WIDTH,),
        }
    for i, width in enumerate(NECK):
        refining = f"depth_head.scratch.refinenet{i + 1}"
        shapes |= _layer(f"depth_head.projects.{i}", width, WIDTH, 1, 1)
        shapes |= {f"depth_head.scratch.layer{i + 1}_rn.weight": (FUSED, width, 3, 3)}
        shapes |= _layer(f"{refining}.out_conv", FUSED, FUSED, 1, 1)
        for unit in (1, 2):
            for convolution in (1, 2):
                name = f"{refining}.resConfUnit{unit}.conv{convolution}"
                shapes |= _layer(name, FUSED, FUSED, 3, 3)
    for i, side in ((0, 4), (1, 2), (3, 3)):
        shapes |= _layer(f"depth_head.resize_layers.{i}", NECK[i], NECK[i], side, side)
    return {name: 0.1 * torch.randn(shape) for name, shape in shapes.items()}


def _layer(name: str, *shape: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def _zoe() -> Any:
    transformers = _transformers()
    backbone = transformers.BeitConfig(
        image_size=64,
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_attention_heads=4,
        num_hidden_layers=LAYERS,
        out_indices=[1, 2, 3, 4],
        use_relative_position_bias=True,
        reshape_hidden_states=False,
    )
    bins = [
        {"name": name, "n_bins": 64, "min_depth": 1e-3, "max_depth": most}
        for name, most in (("nyu", 10.0), ("kitti", 80.0))
    ]
    config = transformers.ZoeDepthConfig(
        backbone_config=backbone,
        neck_hidden_sizes=NECK,
        bin_configurations=bins,
        num_patch_transformer_layers=4,
        patch_transformer_hidden_size=128,
        patch_transformer_intermediate_size=1024,
        patch_transformer_num_attention_heads=4,
    )
    return _state(transformers.ZoeDepthForDepthEstimation(config))


def _oneformer(queries: int, classes: int) -> Any:
    transformers = _transformers()
    backbone = transformers.SwinConfig(
        embed_dim=32,
        depths=[1, 1, 2, 1],
        num_heads=[1, 2, 4, 8],
        window_size=4,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = transformers.OneFormerConfig(
        backbone_config=backbone, num_queries=queries, num_labels=classes, is_training=False
    )
    return _state(transformers.OneFormerForUniversalSegmentation(config))


# What is in each file of hordelib.job.control_types.
RANDOM: dict[str, Callable[[], Any]] = {
    "ControlNetHED.pth": _hed,
    "res101.pth": _leres,
    "dpt_hybrid-midas-501f0c75.pt": _midas,
    "body_pose_model.pth": _body,
    "hand_pose_model.pth": _hand,
    "facenet.pth": _face,
    "upernet-convnext-small.bin": _upernet,
    "mlsd_large_512_fp32.pth": _mlsd,
    "sk_model.pth": _line_art,
    "netG.pth": _anime_lines,
    "erika.pth": lambda: _state(MangaLines()),
    "table5_pidinet.pth": _pidinet,
    "teed_7_model.pth": _teed,
    "scannet.pt": _normal_bae,
    "zoedepth-nyu-kitti.safetensors": _zoe,
    "depth-anything-large-hf.safetensors": _depth_anything,
    "depth_anything_v2_vitl.pth": depth_anything_v2,
    "oneformer_ade20k_swin_large.bin": lambda: _oneformer(20, 150),
    "oneformer_coco_swin_large.bin": lambda: _oneformer(10, 133),
}


def save_weights(control: ControlType, folder: Path) -> Path:
    """Random weights for a type, in files of the right names; the first of them.

    Files that are there already stay as they are.
    """
    for weights in CONTROL_TYPES[control].weights:
        if (folder / weights.file).is_file():
            continue
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), without_initial_values():
            warnings.simplefilter("ignore")  # of controlnet_aux and timm
            state = RANDOM[weights.file]()
        if weights.file.endswith(".safetensors"):
            from safetensors.torch import save_file

            save_file({name: value.clone() for name, value in state.items()}, folder / weights.file)
        else:
            torch.save(state, folder / weights.file)
    return folder / CONTROL_TYPES[control].weights[0].file
