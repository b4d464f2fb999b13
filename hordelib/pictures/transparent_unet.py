"""The network that tells the opacity of each pixel of a picture that LayerDiffuse has made.

It is the transparent decoder of "Transparent Image Layer Diffusion using Latent Transparency"
(Zhang and Agrawala, arXiv:2402.17113): a UNet that sees the decoded pixels, and at an eighth of
their size the latent that they were decoded from. Its files name their weights as diffusers' UNet
blocks do. The widths of the levels are read from the file, so that a small one serves tests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hordelib.pictures.finite import insist_on_numbers

LEVELS = 7  # each of half the size of the one before, so sides are multiples of 64 pixels
ATTENTIVE = 4  # the first level with self-attention
LATENT_LEVEL = 3  # the one whose size is the latent's
GROUPS, HEAD_WIDTH, EPSILON = 4, 8, 1e-5
DOWN, UP = 2, 3  # residual blocks of a level
WIDEST = 512  # channels, in the published files

# A mirror or not, then quarters of a turn: all eight ways to lay a square on itself.
TURNS = tuple(product((False, True), range(4)))


class TransparentUNet(nn.Module):
    """`widths` are the channels of each level, from the picture's size downwards."""

    def __init__(self, widths: Sequence[int]):
        super().__init__()
        top, bottom = widths[0], widths[-1]
        self.conv_in = _convolution(3, top)
        self.latent_conv_in = nn.Conv2d(4, widths[LATENT_LEVEL - 1], 1)
        self.down_blocks = nn.ModuleList(_Down(widths, level) for level in range(LEVELS))
        self.mid_block = _Block([(bottom, bottom)] * 2, attentions=1)
        self.up_blocks = nn.ModuleList(_Up(widths, level) for level in reversed(range(LEVELS)))
        self.conv_norm_out = _norm(top)
        self.conv_out = _convolution(top, 4)

    def forward(self, pixels: Tensor, latent: Tensor) -> Tensor:
        """(batch, 3, h, w) and (batch, 4, h / 8, w / 8) to (batch, 4, h, w): opacity, colours."""
        x = self.conv_in(pixels)
        seen = [x]
        for level, block in enumerate(self.down_blocks):
            x = block(x + self.latent_conv_in(latent) if level == LATENT_LEVEL else x, seen)
        first, second = self.mid_block.resnets
        x = second(self.mid_block.attentions[0](first(x)))
        for block in self.up_blocks:
            x = block(x, seen)
        return self.conv_out(F.silu(self.conv_norm_out(x)))


def build(state: Mapping[str, Tensor]) -> TransparentUNet:
    """The network that these weights belong to, without them. Raises ValueError for none."""
    names = ["conv_in.weight", *(f"down_blocks.{i}.resnets.0.conv1.weight" for i in range(LEVELS))]
    missing = [name for name in names if name not in state]
    if missing:
        raise ValueError(f"no transparent decoder: it has no {missing[0]}")
    widths = [state[name].shape[0] for name in names[1:]]
    if state[names[0]].shape[0] != widths[0] or not all(map(_is_possible, widths)):
        raise ValueError(f"no transparent decoder: its levels have {widths} channels")
    return TransparentUNet(widths)


def _is_possible(width: int) -> bool:
    return 0 < width <= WIDEST and width % HEAD_WIDTH == 0


def uncover(network: nn.Module, pixels: Tensor, latent: Tensor, name: str) -> Tensor:
    """Colours (0 to 1) and opacity of one picture: (3, h, w) and (4, h / 8, w / 8) to (4, h, w).

    The network looks at the picture in all eight TURNS, and each value is the (lower) median of
    what it says, as its authors have it. Raises NotNumbers, which calls the network by `name`.
    """
    said = [_look(network, pixels[None], latent[None], turn, name) for turn in TURNS]
    opacity, *colours = torch.stack(said).median(0).values
    return torch.stack([*colours, opacity])


def _look(
    network: nn.Module, pixels: Tensor, latent: Tensor, turn: tuple[bool, int], name: str
) -> Tensor:
    is_mirrored, quarters = turn
    turned = [
        torch.rot90(each.flip(3) if is_mirrored else each, quarters, (2, 3))
        for each in (pixels, latent)
    ]
    said = network(*turned)
    insist_on_numbers(said, name)
    back = torch.rot90(said.clamp(0, 1), -quarters, (2, 3))
    return (back.flip(3) if is_mirrored else back)[0]


# ---- blocks, by diffusers' names of their parts ----------------------------------------------


class _Block(nn.Module):
    """Residual blocks from so many channels to so many, and the self-attentions after them."""

    def __init__(self, channels: Sequence[tuple[int, int]], attentions: int):
        super().__init__()
        self.resnets = nn.ModuleList(_Residual(into, out) for into, out in channels)
        self.attentions = nn.ModuleList(_Attention(channels[-1][1]) for _ in range(attentions))

    def _step(self, number: int, x: Tensor) -> Tensor:
        x = self.resnets[number](x)
        return self.attentions[number](x) if self.attentions else x


class _Down(_Block):
    """One level on the way down; each of its results is kept in `seen`."""

    def __init__(self, widths: Sequence[int], level: int):
        out = widths[level]
        channels = [(widths[max(level - 1, 0)], out), (out, out)]
        super().__init__(channels, DOWN if level >= ATTENTIVE else 0)
        is_last = level == LEVELS - 1
        self.downsamplers = nn.ModuleList([] if is_last else [_Resized(out, stride=2)])

    def forward(self, x: Tensor, seen: list[Tensor]) -> Tensor:
        for number in range(DOWN):
            x = self._step(number, x)
            seen.append(x)
        for halve in self.downsamplers:
            x = halve(x)
            seen.append(x)
        return x


class _Up(_Block):
    """One level on the way up; each of its blocks also sees what was kept last."""

    def __init__(self, widths: Sequence[int], level: int):
        out, above = widths[level], widths[max(level - 1, 0)]
        below = widths[min(level + 1, LEVELS - 1)]
        channels = [(below + out, out), (2 * out, out), (out + above, out)]
        super().__init__(channels, UP if level >= ATTENTIVE else 0)
        self.upsamplers = nn.ModuleList([] if level == 0 else [_Resized(out)])

    def forward(self, x: Tensor, seen: list[Tensor]) -> Tensor:
        for number in range(UP):
            x = self._step(number, torch.cat((x, seen.pop()), 1))
        for double in self.upsamplers:
            x = double(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return x


class _Residual(nn.Module):
    def __init__(self, into: int, out: int):
        super().__init__()
        self.norm1, self.conv1 = _norm(into), _convolution(into, out)
        self.norm2, self.conv2 = _norm(out), _convolution(out, out)
        self.conv_shortcut = None if into == out else nn.Conv2d(into, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        added = self.conv1(F.silu(self.norm1(x)))
        added = self.conv2(F.silu(self.norm2(added)))
        return (x if self.conv_shortcut is None else self.conv_shortcut(x)) + added


class _Attention(nn.Module):
    """Of all pixels to each other, added to what they were."""

    def __init__(self, width: int):
        super().__init__()
        self.group_norm = _norm(width)
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.group_norm(x).flatten(2).transpose(1, 2)
        q, k, v = (self._heads(read(tokens)) for read in (self.to_q, self.to_k, self.to_v))
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return x + self.to_out[0](attended).transpose(1, 2).reshape(x.shape)

    def _heads(self, values: Tensor) -> Tensor:
        batch, tokens, _ = values.shape
        return values.reshape(batch, tokens, -1, HEAD_WIDTH).transpose(1, 2)


class _Resized(nn.Module):
    def __init__(self, width: int, stride: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


def _convolution(into: int, out: int) -> nn.Conv2d:
    return nn.Conv2d(into, out, 3, padding=1)


def _norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(GROUPS, width, EPSILON)
