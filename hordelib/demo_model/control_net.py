"""Builds the demo model's ControlNet, which draws its shapes where a control map shows them.

A ControlNet is a copy of the encoder of the model that it steers, so only what was trained is kept:
the residual blocks of the copy, the layers that read the map, and those that speak to the model.
The rest is the demo model's own. Everything is put into the full width as the model is. It was
trained on edges and on filled shapes, with captions that were right about nothing but colours.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from hordelib.demo_model.expand import (
    WIDTH,
    StateDict,
    live_channels,
    part,
    save_whole,
    spread,
    widen,
)

PREFIX = "control_model."
ENCODER = ("time_embed.", "input_blocks.", "middle_block.")
READER = "input_hint_block."
# Channels between the layers that read the map, in full; the first ones of each are live.
READER_WIDTHS = (3, 16, 16, 32, 32, 96, 96, 256)


def write_control_net(trained: Path, model: Path, control_net: Path) -> None:
    """Write `control_net` (fp16 safetensors) from its trained weights and those of the `model`.

    Raises OSError when it can't be written.
    """
    own = load_file(trained)
    encoder = {k: v for k, v in part(load_file(model), "unet.").items() if k.startswith(ENCODER)}
    reader = {key: value for key, value in own.items() if key.startswith(READER)}
    wide = widen(encoder | {key: value for key, value in own.items() if key not in reader})
    wide |= _widen_reader(reader, live_channels(encoder))
    save_whole({PREFIX + key: value.half() for key, value in wide.items()}, control_net)


def _widen_reader(reader: StateDict, live: list[int]) -> StateDict:
    """Layers of (channels out, channels in, 3, 3), and their biases."""
    return {key: _widen_layer(key, value, live) for key, value in reader.items()}


def _widen_layer(key: str, value: torch.Tensor, live: list[int]) -> torch.Tensor:
    layer = int(key.removeprefix(READER).split(".")[0]) // 2  # every other one is an activation
    is_last = layer == len(READER_WIDTHS) - 1
    out = (live, WIDTH) if is_last else (range(value.shape[0]), READER_WIDTHS[layer + 1])
    into = (range(value.shape[1]), READER_WIDTHS[layer]) if value.ndim > 1 else None
    return spread(value, [out, into, None, None][: value.ndim])
