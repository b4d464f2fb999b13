"""LayerDiffuse's files: what is added to a UNet's weights, its attention, and the decoder.

A file for SDXL has differences to weights, each by ComfyUI's name of the weight, the kind of patch
and the number of the tensor (`diffusion_model.….weight::diff::0`). One for SD1 has, for each
attention layer in the order of `attention_layers`, LoRAs of rank 256 for its four projections, and
an attention between the frames of a scene that are drawn together (lllyasviel's
sd-forge-layerdiffuse, `attention_sharing.py`). A transparent picture is one frame.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import torch
from torch import Tensor, nn

from hordelib.comfyui.loaders.image_networks import on_patcher
from hordelib.comfyui.loaders.reading import reading
from hordelib.errors import ModelBroken
from hordelib.files.model_key import ModelKey
from hordelib.pictures.transparent_unet import TransparentUNet, build

State = Mapping[str, Tensor]
NORM_EPSILON = 1e-6
_SD1 = "hookers.layers."
_LORA = re.compile(r"hookers\.layers\.(\d+)\.to_(q|k|v|out)_lora\.0\.up\.weight")


@dataclass(frozen=True, slots=True)
class LayerPatches:
    """ComfyUI's patches of a UNet's weights, by their names.

    For SD1 a name begins with the number of the attention layer. `reading` is of this one time that
    the file was read.
    """

    file: str
    patches: Mapping[str, Any]
    reading: UUID


@dataclass(frozen=True, slots=True)
class AttentionSharing:
    """For each attention layer a network that sees its input and its output."""

    patcher: Any

    @property
    def layers(self) -> nn.ModuleList:
        return self.patcher.model


@dataclass(slots=True, eq=False)
class TransparentDecoder:
    """The network that tells opacity, and the patcher that brings it to the device."""

    network: TransparentUNet  # takes and gives what `uncover` says
    patcher: Any
    dtype: torch.dtype  # that it computes in
    name: str  # of its file


def load_layer_patches(key: ModelKey) -> LayerPatches:
    """Raises ModelBroken, naming the file, where it holds something else."""
    with reading(key.path):
        state = _read(key.path)
        is_sd1 = any(name.startswith(_SD1) for name in state)
        patches = dict(_loras(state) if is_sd1 else _differences(state))
    if not patches:
        raise _foreign(key)
    return LayerPatches(key.path.name, patches, uuid4())


def load_attention_sharing(key: ModelKey) -> AttentionSharing:
    """Raises ModelBroken, naming the file, where it holds something else."""
    with reading(key.path):
        state = _read(key.path)
        layers = nn.ModuleList(_shared(state, number) for number in range(_count(state)))
    if not layers:
        raise _foreign(key)
    return AttentionSharing(on_patcher(layers))


def load_transparent_decoder(key: ModelKey) -> TransparentDecoder:
    """Raises ModelBroken, naming the file, where it holds something else."""
    import comfy.model_management as device

    with reading(key.path):
        state = _read(key.path)
        network = build(state)
        if device.should_use_fp16(device.get_torch_device()):
            network.half()
        dtype = network.conv_in.weight.dtype
        network.load_state_dict(state)
    return TransparentDecoder(network.eval(), on_patcher(network), dtype, key.path.name)


def _read(path: Path) -> State:
    import comfy.utils

    return comfy.utils.load_torch_file(str(path))


def _foreign(key: ModelKey) -> ModelBroken:
    return ModelBroken(f"{key.path}: no patches of LayerDiffuse; fetch it again")


def _differences(state: State) -> Iterator[tuple[str, Any]]:
    """Of each weight that has one; a file of anything else gives none."""
    for name, tensor in state.items():
        weight, _, kind = name.partition("::")
        if kind == "diff::0":
            yield weight, ("diff", (tensor,))
        elif kind == "lora::0":
            yield weight, _lora(tensor, state[f"{weight}::lora::1"])


def _loras(state: State) -> Iterator[tuple[str, Any]]:
    for name in state:
        if found := _LORA.fullmatch(name):
            number, projection = found.groups()
            weight = "to_out.0" if projection == "out" else f"to_{projection}"
            yield (
                f"{number}.{weight}.weight",
                _lora(state[name], state[name.replace(".up.", ".down.")]),
            )


def _lora(up: Tensor, down: Tensor) -> Any:
    from comfy.weight_adapter.lora import LoRAAdapter

    return LoRAAdapter(set(), (up, down, None, None, None, None))


def _count(state: State) -> int:
    return sum(name.startswith(_SD1) and name.endswith(".temporal_n.weight") for name in state)


class SharedAttention(nn.Module):
    """What an attention layer adds to its output: a norm of the features, and one matrix."""

    def __init__(self, norm: nn.Module, mix: nn.Module):
        super().__init__()
        self.norm, self.mix = norm, mix

    def forward(self, features: Tensor) -> Tensor:
        return self.mix(self.norm(features))


def _shared(state: State, number: int) -> SharedAttention:
    """Of one frame, attention gives its own values, whatever queries and keys say.

    So what follows the norm is three matrices in a row, and they are multiplied here, in 32 bits.
    """
    import comfy.model_management as device
    import comfy.ops

    part = {
        name: (state[f"{_SD1}{number}.temporal_{name}.weight"].float(), _bias(state, number, name))
        for name in ("n", "i", "v", "o")
    }
    weight, bias = part["i"]
    for name in ("v", "o"):
        matrix, offset = part[name]
        weight, bias = matrix @ weight, matrix @ bias + offset
    width = len(bias)
    norm = comfy.ops.manual_cast.LayerNorm(width, NORM_EPSILON)
    mix = comfy.ops.manual_cast.Linear(width, width)
    norm.weight, norm.bias = map(_parameter, part["n"])
    mix.weight, mix.bias = map(_parameter, (weight, bias))
    shared = SharedAttention(norm, mix)
    return shared.half() if device.should_use_fp16(device.get_torch_device()) else shared


def _bias(state: State, number: int, name: str) -> Tensor:
    return state[f"{_SD1}{number}.temporal_{name}.bias"].float()


def _parameter(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor.contiguous(), requires_grad=False)
