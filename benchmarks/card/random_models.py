"""Models in the layouts of Stable Diffusion 1.5 and XL whose weights are random numbers.

How long computing takes does not depend on what the numbers are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.card.layouts import Shapes, sd1, sdxl

GAIN = 0.7  # of a layer: what comes out of many of them stays in the range of half precision
KINDS = {"sd15": sd1, "sdxl": sdxl}


def write_random(path: Path, kind: str, device: str) -> int:
    """The bytes of a checkpoint in half precision; the numbers are drawn on `device`."""
    shapes = KINDS[kind]()
    header: dict[str, Any] = {}
    end = 0
    for name, shape in shapes.items():
        size = 2 * prod(shape)
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in _tensors(shapes, device):
            file.write(tensor.cpu().numpy().data)
    return path.stat().st_size


def random_lora(checkpoint_shapes: Shapes, rank: int = 16) -> dict[str, Tensor]:
    """One for all layers of attention of a UNet."""
    tensors: dict[str, Tensor] = {}
    start = "model.diffusion_model."
    for name, shape in checkpoint_shapes.items():
        if name.startswith(start) and ".attn" in name and len(shape) == 2:
            base = "lora_unet_" + name.removeprefix(start).removesuffix(".weight").replace(".", "_")
            tensors[f"{base}.lora_up.weight"] = 0.01 * torch.randn(shape[0], rank)
            tensors[f"{base}.lora_down.weight"] = 0.01 * torch.randn(rank, shape[1])
            tensors[f"{base}.alpha"] = torch.tensor(float(rank))
    return {name: tensor.half() for name, tensor in tensors.items()}


def _tensors(shapes: Shapes, device: str) -> Iterator[Tensor]:
    for name, shape in shapes.items():
        if name.endswith("bias"):
            value = torch.zeros(shape, device=device)
        elif len(shape) < 2:  # norms
            value = torch.ones(shape, device=device)
        else:
            value = torch.randn(shape, device=device) * (GAIN / prod(shape[1:]) ** 0.5)
        yield value.half().contiguous()
