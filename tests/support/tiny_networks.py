"""Networks of real architectures, made so small or so simple that one knows what comes out."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from spandrel.architectures.Compact import Compact
from spandrel.architectures.DAT import DAT
from spandrel.architectures.ESRGAN import ESRGAN
from spandrel.architectures.GFPGAN import GFPGAN
from spandrel.architectures.RestoreFormer import RestoreFormer
from spandrel_extra_arches.architectures.CodeFormer import CodeFormer
from torch import Tensor, nn

GREEN = (-1.0, 1.0, -1.0)  # what a face fixer answers for pure green


def write_compact(path: Path, scale: int = 4) -> Path:
    """An upscaler that repeats pixels: all that it would add to that is zero."""
    return _write(path, _zeros(lambda: Compact(num_feat=4, num_conv=1, upscale=scale)))


def write_esrgan(path: Path) -> Path:
    """RealESRGAN_x4plus of one block, whose convolutions hand their input on; 4 times as large."""
    network = ESRGAN(num_filters=8, num_blocks=1, scale=4)
    for name, parameter in network.named_parameters():
        is_inside_block = name.startswith("model.1.sub.")
        if parameter.dim() == 4 and not is_inside_block:
            nn.init.dirac_(parameter)
        else:
            nn.init.zeros_(parameter)
    return _write(path, network.state_dict())


def write_dat(path: Path) -> Path:
    """A DAT with random weights, twice as large."""
    network = DAT(embed_dim=32, split_size=[2, 4], depth=[2], num_heads=[2], upscale=2, img_size=8)
    seeded = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.05, generator=seeded)
    return _write(path, network.state_dict())


def write_green_faces(path: Path) -> Path:
    """A small RestoreFormer that draws every face in pure green."""
    state = _zeros(
        lambda: RestoreFormer(
            n_embed=4,
            embed_dim=32,
            ch=32,
            out_ch=3,
            ch_mult=(1, 1, 1, 1, 1, 1),
            num_res_blocks=1,
            attn_resolutions=(16,),
            dropout=0.0,
            in_channels=3,
            resolution=512,
            z_channels=32,
            double_z=False,
            enable_mid=True,
            head_size=8,
        )
    )
    return _write(path, state | {"decoder.conv_out.bias": torch.tensor(GREEN)})


def write_gfpgan(path: Path) -> Path:
    """GFPGAN in its real size, all weights zero, that draws every face in pure green."""
    state = _zeros(lambda: GFPGAN(different_w=True, input_is_latent=True, sft_half=True))
    last = "stylegan_decoder.to_rgbs.6.bias"
    return _write(path, {"params_ema": state | {last: torch.tensor(GREEN).reshape(1, 3, 1, 1)}})


def write_codeformer(path: Path) -> Path:
    """CodeFormer in its real size, all weights zero, that draws every face in pure green."""
    state = _zeros(CodeFormer)
    last = max(
        (name for name in state if name.startswith("generator.") and name.endswith(".bias")),
        key=lambda name: int(name.split(".")[2]),
    )
    return _write(path, {"params_ema": state | {last: torch.tensor(GREEN)}})


def write_brightness(path: Path, slope: float = 1.0) -> Path:
    """U-2-Net's input and output, and between them only this: bright is the subject."""
    picture, mask = _tensor("picture", 3), _tensor("mask", 1)
    axes = _text(1, "axes") + _number(8, 1) + _number(20, 7)
    mean = _text(1, "picture") + _text(2, "mean") + _text(4, "ReduceMean") + _bytes(5, axes)
    alpha = _text(1, "alpha") + _varint(2 << 3 | 5) + struct.pack("<f", slope) + _number(20, 1)
    surely = _text(1, "mean") + _text(2, "mask") + _text(4, "HardSigmoid") + _bytes(5, alpha)
    nodes = _bytes(1, mean) + _bytes(1, surely)
    graph = nodes + _text(2, "brightness") + _bytes(11, picture) + _bytes(12, mask)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_number(1, 8) + _bytes(7, graph) + _bytes(8, _text(1, "") + _number(2, 13)))
    return path


def write_with_data_elsewhere(path: Path, location: str, *, as_attribute: bool = False) -> Path:
    """As `write_brightness`, plus a constant that the file `location` has the 4 bytes of."""
    picture, mask = _tensor("picture", 3), _tensor("mask", 1)
    entry = _bytes(13, _text(1, "location") + _text(2, location))
    constant = _number(1, 1) + _number(2, 1) + _text(8, "constant") + entry + _number(14, 1)
    value = _text(1, "value") + _bytes(5, constant) + _number(20, 4)
    made = _text(2, "constant") + _text(4, "Constant") + _bytes(5, value)
    axes = _text(1, "axes") + _number(8, 1) + _number(20, 7)
    mean = _text(1, "picture") + _text(2, "mean") + _text(4, "ReduceMean") + _bytes(5, axes)
    plus = _text(1, "mean") + _text(1, "constant") + _text(2, "mask") + _text(4, "Add")
    data = _bytes(1, made) if as_attribute else _bytes(5, constant)
    first, last = (data, b"") if as_attribute else (b"", data)
    graph = first + _bytes(1, mean) + _bytes(1, plus) + _text(2, "elsewhere") + last
    graph += _bytes(11, picture) + _bytes(12, mask)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_number(1, 8) + _bytes(7, graph) + _bytes(8, _text(1, "") + _number(2, 13)))
    return path


def _zeros(make: Callable[[], nn.Module]) -> dict[str, Tensor]:
    """A state of zeros that takes no room in its file."""
    with torch.device("meta"):
        shapes = make().state_dict()
    return {name: torch.zeros(1).expand(value.shape) for name, value in shapes.items()}


def _write(path: Path, state: Mapping[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(dict(state), path)
    return path


# The few messages of ONNX's format (protocol buffers) that a graph of one node needs.


def _varint(value: int) -> bytes:
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _text(field: int, value: str) -> bytes:
    return _bytes(field, value.encode())


def _tensor(name: str, channels: int) -> bytes:
    """ValueInfoProto: float32 (1, channels, 320, 320)."""
    sizes = b"".join(_bytes(1, _number(1, size)) for size in (1, channels, 320, 320))
    return _text(1, name) + _bytes(2, _bytes(1, _number(1, 1) + _bytes(2, sizes)))
