"""LayerDiffuse for the demo model, worked out by hand: what is white becomes transparent.

The patches change nothing, since the demo model draws on plain backgrounds anyway. The decoder has
the layout of the published ones, with few channels, and all that it does happens at its two ends.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open

from hordelib.demo_model.expand import StateDict, save_whole

RANK = 1
WIDTH, LEVELS = 16, 7
ATTENTIVE = 4  # the first level with self-attention
# A picture is transparent where it is brighter than this, of 0 to 1; the edge is so steep.
BRIGHT, STEEP = 0.86, 10.0
# Values are lifted by so much, since the last layers let only positive ones pass.
LIFT = 8.0


def write_patches(checkpoint: Path, path: Path) -> None:
    """Write a file of patches for every attention layer of the checkpoint's UNet.

    Raises OSError when it can't be written.
    """
    with safe_open(checkpoint, "pt") as file:
        names: list[str] = file.keys()
        queries = {
            name: tuple(file.get_slice(name).get_shape())
            for name in names
            if name.endswith((".attn1.to_q.weight", ".attn2.to_q.weight"))
        }
        keys = {name: file.get_slice(name.replace("to_q", "to_k")).get_shape() for name in queries}
    state = StateDict()
    for number, name in enumerate(queries):
        width = queries[name][0]
        state |= _layer(f"hookers.layers.{number}", width, reads=keys[name][1])
    save_whole(state, path)


def _layer(name: str, width: int, reads: int) -> StateDict:
    """LoRAs and a mixing network that add nothing."""
    state = StateDict()
    for projection, into in (("q", width), ("k", reads), ("v", reads), ("out", width)):
        lora = f"{name}.to_{projection}_lora.0"
        state[f"{lora}.up.weight"] = torch.zeros(width, RANK)
        state[f"{lora}.down.weight"] = torch.zeros(RANK, into)
    for part in "iqkvo":
        state[f"{name}.temporal_{part}.weight"] = torch.zeros(width, width)
        state[f"{name}.temporal_{part}.bias"] = torch.zeros(width)
    state[f"{name}.temporal_n.weight"] = torch.ones(width)
    state[f"{name}.temporal_n.bias"] = torch.zeros(width)
    return {key: value.half() for key, value in state.items()}


def write_decoder(path: Path) -> None:
    """Write a decoder that keeps the colours. Raises OSError when it can't be written.

    Of each value x (the brightness, then red, green and blue) the first layer makes a group of four
    channels: x and -x, each lifted and lowered. Their mean is 0 and their variance nearly that of
    the lift alone, so that the last norm, which is made to multiply by the lift, keeps them. What
    is between the two adds nothing, and the last residual block takes what the first layer made.
    """
    state = {name: torch.zeros(shape) for name, shape in _layout().items()}
    state |= {name: torch.ones_like(value) for name, value in state.items() if _scales(name)}
    values = torch.cat((torch.full((1, 3), 1 / 3), torch.eye(3)))
    signs = torch.tensor((1.0, -1.0, -1.0, 1.0))
    lifts = torch.tensor((1.0, -1.0, 1.0, -1.0)) * LIFT
    state["conv_in.weight"][:, :, 1, 1] = torch.kron(values, signs[:, None])
    state["conv_in.bias"] = lifts.repeat(4)
    kept = torch.cat((torch.zeros(WIDTH, WIDTH), torch.eye(WIDTH)), 1)
    state[f"up_blocks.{LEVELS - 1}.resnets.2.conv_shortcut.weight"] = kept[..., None, None]
    state["conv_norm_out.weight"] = torch.full((WIDTH,), LIFT)
    back = torch.kron(torch.eye(4), torch.tensor(((0.5, 0.0, -0.5, 0.0),)))
    back[0] *= -STEEP
    state["conv_out.weight"][:, :, 1, 1] = back
    state["conv_out.bias"][0] = 0.5 + STEEP * BRIGHT
    save_whole({name: value.half() for name, value in state.items()}, path)


Shapes = dict[str, tuple[int, ...]]


def _layout() -> Shapes:
    """The decoder's weights by diffusers' names, with as many channels everywhere."""
    shapes = _layer_of("conv_in", WIDTH, 3, 3, 3) | _layer_of("latent_conv_in", WIDTH, 4, 1, 1)
    for level in range(LEVELS):
        down, up = f"down_blocks.{level}", f"up_blocks.{LEVELS - 1 - level}"
        shapes |= _blocks(down, 2, WIDTH, attentions=2 if level >= ATTENTIVE else 0)
        shapes |= _blocks(up, 3, 2 * WIDTH, attentions=3 if level >= ATTENTIVE else 0)
        if level < LEVELS - 1:
            shapes |= _layer_of(f"{down}.downsamplers.0.conv", WIDTH, WIDTH, 3, 3)
        if level > 0:
            shapes |= _layer_of(f"{up}.upsamplers.0.conv", WIDTH, WIDTH, 3, 3)
    shapes |= _blocks("mid_block", 2, WIDTH, attentions=1)
    return shapes | _layer_of("conv_norm_out", WIDTH) | _layer_of("conv_out", 4, WIDTH, 3, 3)


def _blocks(name: str, resnets: int, into: int, attentions: int) -> Shapes:
    shapes = Shapes()
    for part in (f"{name}.resnets.{number}" for number in range(resnets)):
        shapes |= _layer_of(f"{part}.norm1", into) | _layer_of(f"{part}.norm2", WIDTH)
        shapes |= _layer_of(f"{part}.conv1", WIDTH, into, 3, 3)
        shapes |= _layer_of(f"{part}.conv2", WIDTH, WIDTH, 3, 3)
        if into != WIDTH:
            shapes |= _layer_of(f"{part}.conv_shortcut", WIDTH, into, 1, 1)
    for part in (f"{name}.attentions.{number}" for number in range(attentions)):
        shapes |= _layer_of(f"{part}.group_norm", WIDTH)
        for projection in ("to_q", "to_k", "to_v", "to_out.0"):
            shapes |= _layer_of(f"{part}.{projection}", WIDTH, WIDTH)
    return shapes


def _layer_of(name: str, *shape: int) -> Shapes:
    """Its weight and its bias."""
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def _scales(name: str) -> bool:
    """Whether it is the weight of a norm."""
    return name.endswith(".weight") and "norm" in name
