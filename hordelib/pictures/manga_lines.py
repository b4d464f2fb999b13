"""Finds the lines of a manga page, without its screen tones.

The network of "Deep extraction of manga structural lines" (Li, Liu and Wong 2017), with the names
that the file erika.pth has for its layers (MangaLineExtraction_PyTorch, MIT licence).
"""

from __future__ import annotations

from torch import Tensor, nn

NORM_EPSILON, LEAK = 1e-3, 0.2
WIDTHS = (24, 48, 96, 192, 384)  # channels of each size, from the picture's own to a sixteenth
REPEATS = (2, 3, 5, 7, 12)  # blocks of each size on the way down; as many on the way up
LAST_WIDTH = 16


class _Convolution(nn.Module):
    """Norm, activation, convolution, and what changes the size of its result."""

    def __init__(self, reads: int, writes: int, *, side: int = 3, stride: int = 1, grows: int = 1):
        super().__init__()
        convolution = nn.Conv2d(reads, writes, side, stride, side // 2)
        norm = nn.BatchNorm2d(reads, eps=NORM_EPSILON)
        self.model = nn.Sequential(norm, nn.LeakyReLU(LEAK), convolution, *_growing(grows))

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class _Shortcut(nn.Module):
    def __init__(self, reads: int, writes: int, *, stride: int, grows: int):
        super().__init__()
        is_needed = reads != writes or stride > 1
        convolution = nn.Conv2d(reads, writes, 1, stride)
        self.model = nn.Sequential(convolution, *_growing(grows)) if is_needed else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class _Block(nn.Module):
    def __init__(self, reads: int, writes: int, *, stride: int = 1, grows: int = 1):
        super().__init__()
        self.conv1 = _Convolution(reads, writes, stride=stride, grows=grows)
        self.residual = _Convolution(writes, writes)
        self.shortcut = _Shortcut(reads, writes, stride=stride, grows=grows)

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.residual(self.conv1(x))


class _Stage(nn.Module):
    """Blocks of one width. The first of them doubles the size, or the last one halves it."""

    def __init__(self, reads: int, writes: int, blocks: int, *, halves: int = 1, doubles: int = 1):
        super().__init__()
        self.model = nn.Sequential(
            *(
                _Block(
                    reads if i == 0 else writes,
                    writes,
                    stride=halves if i == blocks - 1 else 1,
                    grows=doubles if i == 0 else 1,
                )
                for i in range(blocks)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


def _growing(factor: int) -> list[nn.Module]:
    return [nn.Upsample(scale_factor=factor, mode="nearest")] if factor > 1 else []


class MangaLines(nn.Module):
    """(1, 1, height, width), grey, 0 to 255, to the same: dark lines on white paper.

    Both sides are multiples of 16.
    """

    def __init__(self):
        super().__init__()
        depth = len(WIDTHS) - 1
        self.block0 = _Stage(1, WIDTHS[0], REPEATS[0])
        for i in range(1, depth + 1):
            stage = _Stage(WIDTHS[i - 1], WIDTHS[i], REPEATS[i], halves=2)
            self.add_module(f"block{i}", stage)
        for i in range(depth):
            below = WIDTHS[depth - i], WIDTHS[depth - i - 1], REPEATS[depth - i - 1]
            self.add_module(f"block{depth + 1 + i}", _Stage(*below, doubles=2))
        self.add_module(f"block{2 * depth + 1}", _Stage(WIDTHS[0], LAST_WIDTH, REPEATS[0]))
        self.conv15 = _Convolution(LAST_WIDTH, 1, side=1)

    def forward(self, x: Tensor) -> Tensor:
        depth = len(WIDTHS) - 1
        found: list[Tensor] = []
        for i in range(depth + 1):
            x = self.get_submodule(f"block{i}")(x)
            found.append(x)
        for i in range(depth):
            x = found[depth - 1 - i] + self.get_submodule(f"block{depth + 1 + i}")(x)
        return self.conv15(self.get_submodule(f"block{2 * depth + 1}")(x))
