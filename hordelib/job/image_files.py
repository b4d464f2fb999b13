"""Clients' image files: a stranger's bytes become upright pixels, or the reason why not.

The horde re-encodes what clients send as WebP of at most 3072 * 3072 pixels, but nothing here
relies on it: types are told by signature, sizes by the header before anything is decoded. Colour
profiles are ignored.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
from PIL import (
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from hordelib.errors import BadSource
from hordelib.job.images import SourceImage
from hordelib.job.params import MAX_SIDE
from hordelib.job.picture_files import excess, orientation

MAX_BYTES = 16 * 1024 * 1024
MAX_PIXELS = 4096 * 4096
LONGEST_SIDE = 16384  # pixels, as of a WebP file; memory is also taken for each row

# The horde sends masks as lossy WebP: within this distance, black and white are meant.
MASK_NOISE = 16

_SIGNATURES: tuple[tuple[int, bytes, type[ImageFile.ImageFile]], ...] = (
    (8, b"WEBP", WebPImagePlugin.WebPImageFile),
    (0, b"\x89PNG\r\n\x1a\n", PngImagePlugin.PngImageFile),
    (0, b"\xff\xd8\xff", JpegImagePlugin.JpegImageFile),
    (0, b"GIF8", GifImagePlugin.GifImageFile),
    (0, b"BM", BmpImagePlugin.BmpImageFile),
    (0, b"II*\0", TiffImagePlugin.TiffImageFile),
    (0, b"MM\0*", TiffImagePlugin.TiffImageFile),
)

# EXIF 2.3, tag 274: what has to be done to see the picture upright.
_TURNS: Mapping[object, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# TIFF 6.0, section 8.
_BITS, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0

# What Pillow raises for files that are not what they say.
_UNREADABLE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,  # a GIF whose first frame is larger than its header says
)


@dataclass(frozen=True, slots=True)
class Decoded:
    """An image, and in `changes` what the file held besides: a line each, for the client."""

    image: SourceImage
    changes: tuple[str, ...] = ()


def decode(data: bytes, field: str = "source_image") -> Decoded:
    """A PNG, JPEG, WEBP, GIF, BMP or TIFF file as RGB, or RGBA if some of it is transparent.

    Turned upright, and made smaller where a side is longer than any picture of the horde. Raises
    BadSource, which names `field` and the reason. Memory is bounded by MAX_BYTES and MAX_PIXELS.
    """
    image, changes = _read(data, field)
    return Decoded(SourceImage.of_pil(image, "RGBA" if image.mode == "RGBA" else "RGB"), changes)


def decode_mask(data: bytes, field: str = "source_mask") -> Decoded:
    """The same for a mask: mode L, white where the picture is to be repainted.

    Transparent parts count as black. Where that leaves nothing but black, the transparency itself
    is the mask and its transparent parts are repainted, as in a source image without a mask.
    """
    image, changes = _read(data, field)
    return Decoded(SourceImage.of_pil(_clean(_whiteness(image)), "L"), changes)


def alpha_mask(image: SourceImage) -> SourceImage:
    """The mask in an image of mode RGBA: white where it is transparent."""
    return SourceImage.of_pil(_clean(_transparency(image.to_pil())), "L")


def _transparency(image: Image.Image) -> Image.Image:
    return image.getchannel("A").point([255 - value for value in range(256)])


def _whiteness(image: Image.Image) -> Image.Image:
    if image.mode != "RGBA":
        return image.convert("L")
    black = Image.new("RGBA", image.size, "black")
    white = Image.alpha_composite(black, image).convert("L")
    lowest, highest = image.getchannel("A").getextrema()
    return white if white.getbbox() or lowest == highest else _transparency(image)


def _clean(mask: Image.Image) -> Image.Image:
    return mask.point([_cleaned(value) for value in range(256)])


def _cleaned(value: int) -> int:
    if value < MASK_NOISE:
        return 0
    return 255 if value >= 256 - MASK_NOISE else value


def _read(data: bytes, field: str) -> tuple[Image.Image, tuple[str, ...]]:
    """RGB or RGBA, upright and small enough; and the changes."""
    plugin = _plugin(data, field)
    try:
        with plugin(io.BytesIO(data)) as file:
            _insist_on_pixels(file, field)
            changes = _changes(file)
            file.load()
            return _fitted(_upright(_coloured(file, field), file)), changes
    except _UNREADABLE as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise BadSource(f"{field}: the {plugin.format} file is damaged: {reason}") from error


def _plugin(data: bytes, field: str) -> type[ImageFile.ImageFile]:
    if len(data) > MAX_BYTES:
        raise BadSource(f"{field}: {len(data)} bytes: at most {MAX_BYTES} are read")
    for start, signature, plugin in _SIGNATURES:
        if data.startswith(signature, start):
            if told := excess(plugin.format or "", data):
                raise BadSource(f"{field}: {told}")
            return plugin
    raise BadSource(
        f"{field}: starts with {data[:12]!r}: expected a PNG, JPEG, WEBP, GIF, BMP or TIFF file"
    )


def _insist_on_pixels(file: ImageFile.ImageFile, field: str) -> None:
    width, height = file.size
    if max(width, height) > LONGEST_SIDE:
        raise BadSource(f"{field}: {width}x{height} pixels: at most {LONGEST_SIDE} a side")
    if width * height > MAX_PIXELS:
        raise BadSource(f"{field}: {width}x{height} pixels: at most {MAX_PIXELS} are decoded")
    if any(tile.codec_name == "bmp_rle" for tile in file.tile):  # Pillow reads it byte by byte
        raise BadSource(f"{field}: a packed BMP file: expected an unpacked one, or a PNG file")


def _changes(file: ImageFile.ImageFile) -> tuple[str, ...]:
    animated = getattr(file, "is_animated", False)
    return ("only the first frame of the animation was used",) if animated else ()


def _coloured(file: ImageFile.ImageFile, field: str) -> Image.Image:
    image = _of_eight_bits(file, field)
    coloured = image.convert("RGBA" if image.has_transparency_data else "RGB")
    opaque = coloured.mode == "RGB" or coloured.getchannel("A").getextrema() == (255, 255)
    return coloured.convert("RGB") if opaque else coloured


def _of_eight_bits(file: ImageFile.ImageFile, field: str) -> Image.Image:
    """Grey of more bits, or of fractions, which Pillow would only cut off; else the picture."""
    if file.mode == "F":
        grey = _of_fractions(file, field)
    elif file.mode.startswith("I"):
        grey = _of_numbers(file, field)
    else:
        return file
    is_negative = _tag(file, _PHOTOMETRIC) == _WHITE_IS_ZERO
    return grey.point([255 - value for value in range(256)]) if is_negative else grey


def _of_numbers(file: ImageFile.ImageFile, field: str) -> Image.Image:
    most = (1 << min(_tag(file, _BITS, 16), 16)) - 1
    image = file.convert("I")
    low, high = cast("tuple[int, int]", image.getextrema())
    if low < 0 or high > most:
        raise BadSource(f"{field}: grey values of {low} to {high}: expected 0 to {most}")
    return image.point(lambda value: value * (255 / most)).convert("L")


def _of_fractions(file: ImageFile.ImageFile, field: str) -> Image.Image:
    values = np.asarray(file, np.float32)
    low, high = float(values.min()), float(values.max())  # not a number, where any is none
    if not 0 <= low <= high <= 1:
        raise BadSource(f"{field}: grey values of {low:g} to {high:g}: expected fractions, 0 to 1")
    return Image.fromarray((values * 255 + 0.5).astype(np.uint8))


def _tag(file: ImageFile.ImageFile, number: int, otherwise: int = -1) -> int:
    """The first value of a TIFF file's tag."""
    if not isinstance(file, TiffImagePlugin.TiffImageFile):
        return otherwise
    value: object = file.tag_v2.get(number, otherwise)
    if isinstance(value, tuple):
        value = next(iter(cast("tuple[object, ...]", value)), otherwise)
    return value if isinstance(value, int) else otherwise


def _upright(image: Image.Image, file: ImageFile.ImageFile) -> Image.Image:
    turn = _TURNS.get(_orientation(file))
    return image if turn is None else image.transpose(turn)


def _orientation(file: ImageFile.ImageFile) -> object:
    if isinstance(file, TiffImagePlugin.TiffImageFile):
        return file.tag_v2.get(ExifTags.Base.Orientation)
    exif = file.info.get("exif")
    return orientation(exif) if isinstance(exif, bytes) else 1


def _fitted(image: Image.Image) -> Image.Image:
    largest = max(image.size)
    if largest <= MAX_SIDE:
        return image
    width, height = (max(1, round(side * MAX_SIDE / largest)) for side in image.size)
    return _resized(image, (width, height))


def _resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Colours and opacity each on their own: inpainting may use what is under the transparency."""
    colours = image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    if image.mode == "RGBA":
        colours.putalpha(image.getchannel("A").resize(size, Image.Resampling.LANCZOS))
    return colours
