"""How much memory post-processing takes beside its networks' weights, before it runs.

What a file really takes corrects the figures of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from hordelib.files.model_key import ModelKey
from hordelib.job.params import GenerationParams, ProcessorKind
from hordelib.memory.corrections import Corrections

# For each pixel of a tile and each time that its sides are enlarged: ComfyUI's own figure, of its
# ImageUpscaleWithModel. Measured at x4 on the CPU, where it comes to 18 kB: RealESRGAN 13 to 19 kB,
# RealPLKSR 3 to 4 kB, DAT 36 kB.
TILE_BYTES = 3 * 4 * 384
FACE_BYTES = 1 << 30  # for a face of 512 pixels; measured: GFPGAN, CodeFormer 0.7 GiB
DETECTION_BYTES = 180  # for each pixel of a picture in which faces are looked for
CUT_BYTES = 384 << 20  # for U-2-Net at 320 pixels; a guess
MATTING_BYTES, MATTING_PIXELS = 600, 1024**2  # for each pixel, up to so many; measured: 300 to 570
TILES = (512, 256, 128)  # sides in pixels: ComfyUI's own, and those that it halves it to
ALWAYS_BYTES = 32 << 20
OUTPUT_BYTES = 3 * 3 * 4  # for each pixel that comes out: three pictures in 32 bits


@dataclass(frozen=True, slots=True)
class Pictures:
    """What a post-processor gets, and how many times longer it makes each side."""

    width: int
    height: int
    images: int
    scale: int

    def tile_pixels(self, side: int) -> int:
        return min(side, self.width) * min(side, self.height)

    @property
    def enlarged_pixels(self) -> int:
        """Of all pictures that come out."""
        return self.images * self.width * self.height * self.scale**2


def pictures_of(
    params: GenerationParams, scale_of: Callable[[ModelKey], int]
) -> Iterator[tuple[ModelKey, Pictures]]:
    """What each of the job's post-processors gets, in their order; sizes grow on the way."""
    width, height = params.width, params.height
    for processor in params.post_processing:
        key = ModelKey(processor.kind.value, processor.path)
        scale = scale_of(key)
        yield key, Pictures(width, height, params.images, scale)
        width, height = width * scale, height * scale


TELLING_BYTES = 4 * ALWAYS_BYTES

_BYTES: Mapping[ProcessorKind, Callable[[Pictures, int], float]] = {
    ProcessorKind.upscaler: lambda pictures, side: (
        TILE_BYTES * pictures.scale * pictures.tile_pixels(side)
        + OUTPUT_BYTES * pictures.enlarged_pixels
    ),
    ProcessorKind.face_fixer: lambda pictures, _: (
        FACE_BYTES + DETECTION_BYTES * pictures.width * pictures.height
    ),
    ProcessorKind.background: lambda pictures, _: (
        CUT_BYTES + MATTING_BYTES * min(MATTING_PIXELS, pictures.width * pictures.height)
    ),
}


@dataclass(frozen=True, slots=True)
class Processing:
    """What one post-processor takes: upscalers at most for tiles of `side` pixels."""

    working_bytes: int
    side: int = TILES[0]


class ProcessingEstimates:
    """What post-processors take on one device, each file corrected by what it took before."""

    def __init__(self, corrections: Corrections):
        self._corrections = corrections

    def of(self, key: ModelKey, pictures: Pictures, room_bytes: int) -> Processing:
        """With the largest tiles that there is room for; the smallest ones, where there is none."""
        sizes = [Processing(self._bytes(key, pictures, side), side) for side in TILES]
        return next((each for each in sizes if each.working_bytes <= room_bytes), sizes[-1])

    def correct(self, key: ModelKey, predicted_bytes: int, measured_bytes: int) -> None:
        """Learn from a run: upwards at once, downwards by halves; small ones tell nothing."""
        if predicted_bytes < TELLING_BYTES:
            return
        known = self._corrections.of(_name(key))
        found = known * measured_bytes / predicted_bytes
        self._corrections.put(_name(key), found if found > known else (known + found) / 2)

    def _bytes(self, key: ModelKey, pictures: Pictures, side: int) -> int:
        size_bytes = _BYTES[ProcessorKind(key.kind)](pictures, side)
        return ALWAYS_BYTES + int(size_bytes * self._corrections.of(_name(key)))


def _name(key: ModelKey) -> str:
    return f"{key.kind} {key.path.name}"
