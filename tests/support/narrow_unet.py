"""The demo model's network as it was trained: narrow, in plain torch, straight from its weights.

The checkpoint puts these weights into Stable Diffusion 1.5's full width, with zeros elsewhere.
Norms divide by the full width and attention scales by the full head: ComfyUI's see the zeros.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

GROUPS, FULL_GROUP, FULL_WIDTH, HEADS, FULL_HEAD = 32, 10, 320, 8, 40


@dataclass(frozen=True)
class Weights:
    """The tensors below one prefix of the state dict."""

    all: Mapping[str, Tensor]
    prefix: str = ""

    def at(self, *path: str | int) -> Weights:
        return Weights(self.all, self.prefix + ".".join(map(str, path)) + ".")

    def get(self, name: str) -> Tensor | None:
        return self.all.get(self.prefix + name)

    def __getitem__(self, name: str) -> Tensor:
        return self.all[self.prefix + name]


def predict_noise(w: Weights, latents: Tensor, timesteps: Tensor, text: Tensor) -> Tensor:
    """Latents (B, 4, H, W), timesteps (B,), text (B, T, 768) to the noise, (B, 4, H, W)."""
    embedded = F.silu(_linear(w.at("time_embed", 0), _time_features(timesteps)))
    time = _linear(w.at("time_embed", 2), embedded)
    down, up = w.at("input_blocks"), w.at("output_blocks")

    kept = [_conv(down.at(0, 0), latents)]
    kept.append(_residual(down.at(1, 0), kept[-1], time))
    kept.append(_conv(down.at(2, 0, "op"), kept[-1], stride=2))
    deep = _residual(down.at(3, 0), kept[-1], time)
    kept.append(_transformer(down.at(3, 1), deep, text))

    h = _residual(w.at("middle_block", 0), kept[-1], time)
    h = _transformer(w.at("middle_block", 1), h, text)
    h = _residual(w.at("middle_block", 2), h, time)

    for block in range(4):
        h = _residual(up.at(block, 0), torch.cat([h, kept.pop()], 1), time)
        if block < 2:
            h = _transformer(up.at(block, 1), h, text)
        if block == 1:
            h = _conv(up.at(1, 2, "conv"), F.interpolate(h, scale_factor=2, mode="nearest"))
    return _conv(w.at("out", 2), F.silu(_group_norm(w.at("out", 0), h, 1e-5)))


def _time_features(timesteps: Tensor) -> Tensor:
    half = FULL_WIDTH // 2
    frequencies = torch.exp(-math.log(10000) * torch.arange(half) / half)
    angles = timesteps[:, None].float() * frequencies[None]
    return torch.cat([angles.cos(), angles.sin()], -1)


def _residual(w: Weights, x: Tensor, time: Tensor) -> Tensor:
    h = _conv(w.at("in_layers", 2), F.silu(_group_norm(w.at("in_layers", 0), x, 1e-5)))
    h = h + _linear(w.at("emb_layers", 1), F.silu(time))[:, :, None, None]
    h = _conv(w.at("out_layers", 3), F.silu(_group_norm(w.at("out_layers", 0), h, 1e-5)))
    skip = w.at("skip_connection")
    return h + (x if skip.get("weight") is None else _conv(skip, x))


def _transformer(w: Weights, x: Tensor, text: Tensor) -> Tensor:
    h = _conv(w.at("proj_in"), _group_norm(w.at("norm"), x, 1e-6)).flatten(2).transpose(1, 2)
    block = w.at("transformer_blocks", 0)
    own = _layer_norm(block.at("norm1"), h)
    h = h + _attention(block.at("attn1"), own, own)
    h = h + _attention(block.at("attn2"), _layer_norm(block.at("norm2"), h), text)
    value, gate = _linear(block.at("ff.net.0.proj"), _layer_norm(block.at("norm3"), h)).chunk(2, -1)
    h = h + _linear(block.at("ff.net.2"), value * F.gelu(gate))
    return x + _conv(w.at("proj_out"), h.transpose(1, 2).reshape(x.shape))


def _attention(w: Weights, x: Tensor, context: Tensor) -> Tensor:
    def heads(name: str, source: Tensor) -> Tensor:
        batch, tokens, _ = source.shape
        return _linear(w.at(name), source).reshape(batch, tokens, HEADS, -1).transpose(1, 2)

    out = F.scaled_dot_product_attention(
        heads("to_q", x), heads("to_k", context), heads("to_v", context), scale=FULL_HEAD**-0.5
    )
    return _linear(w.at("to_out.0"), out.transpose(1, 2).flatten(2))


def _group_norm(w: Weights, x: Tensor, eps: float) -> Tensor:
    """Means over the full group: dead channels are zero and count."""
    groups = x.reshape(x.shape[0], GROUPS, -1)
    live_width = w.all["input_blocks.0.0.weight"].shape[0]
    full_group = FULL_GROUP * x.shape[1] // live_width
    count = full_group * x.shape[2] * x.shape[3]
    mean = groups.sum(-1, keepdim=True) / count
    variance = groups.square().sum(-1, keepdim=True) / count - mean.square()
    normed = ((groups - mean) * torch.rsqrt(variance + eps)).reshape(x.shape)
    return normed * w["weight"][None, :, None, None] + w["bias"][None, :, None, None]


def _layer_norm(w: Weights, x: Tensor) -> Tensor:
    mean = x.sum(-1, keepdim=True) / FULL_WIDTH
    variance = x.square().sum(-1, keepdim=True) / FULL_WIDTH - mean.square()
    return (x - mean) * torch.rsqrt(variance + 1e-5) * w["weight"] + w["bias"]


def _linear(w: Weights, x: Tensor) -> Tensor:
    return F.linear(x, w["weight"], w.get("bias"))


def _conv(w: Weights, x: Tensor, stride: int = 1) -> Tensor:
    weight = w["weight"]
    return F.conv2d(x, weight, w.get("bias"), stride=stride, padding=weight.shape[-1] // 2)
