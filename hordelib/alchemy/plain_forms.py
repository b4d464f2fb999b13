"""Forms that need no network and no device: technical facts, a palette, and vectors.

The horde checks no shape of a result; these are the shapes that its other workers send. The
packages are imported when a form needs them, so that nobody else waits for them.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from hordelib.errors import GenerationFailed
from hordelib.job.images import SourceImage

BLURHASH_COMPONENTS = (4, 3)  # along the width and the height
PALETTE_COLOURS = 6
THUMBNAIL_SIDE = 256  # pixels: colours and hashes of more would be the same
VECTOR_SIDE = 1024  # pixels: what is traced is made no larger than this
LONGEST_SVG = 8 << 20  # characters: noise becomes a path for each pixel


def describe(image: SourceImage) -> dict[str, Any]:
    """Technical facts; `phash` and `dhash` are 64 bits in hexadecimal."""
    imagehash: Any = import_module("imagehash")
    hashing: Any = import_module("hordelib.alchemy.blurhash")  # computes with NumPy

    picture = image.to_pil()
    rgb = picture.convert("RGB")
    small = rgb.copy()
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    return {
        "blurhash": hashing.blurhash(small, *BLURHASH_COMPONENTS),
        "phash": str(imagehash.phash(rgb)),
        "dhash": str(imagehash.dhash(rgb)),
        "width": image.width,
        "height": image.height,
        "aspect_ratio": round(image.width / image.height, 4),
        "has_alpha": image.mode == "RGBA",
        "format": "WEBP",  # the horde's own re-encoding; the client's file never arrives here
    }


def palette(image: SourceImage) -> dict[str, Any]:
    """At most six colours by median cut, the most frequent first; proportions add up to 1."""
    small = image.to_pil().convert("RGB")
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    cut = small.quantize(PALETTE_COLOURS)
    table = cut.getpalette() or []
    counts: list[tuple[int, int]] = cut.getcolors() or []  # pyright: ignore[reportAssignmentType]
    pixels = small.width * small.height
    colours = [
        {
            "hex": "#{:02x}{:02x}{:02x}".format(*table[3 * index : 3 * index + 3]),
            "proportion": round(count / pixels, 4),
        }
        for count, index in sorted(counts, reverse=True)
    ]
    return {"colors": colours}


def vectorize(image: SourceImage) -> str:
    """SVG text with the picture's shapes as filled paths. Raises GenerationFailed for too many."""
    vtracer: Any = import_module("vtracer")

    picture = image.to_pil()
    picture.thumbnail((VECTOR_SIDE, VECTOR_SIDE))
    file = io.BytesIO()
    picture.save(file, "PNG")
    svg: str = vtracer.convert_raw_image_to_svg(file.getvalue(), img_format="png")
    if len(svg) > LONGEST_SVG:
        raise GenerationFailed(f"vectorize: {len(svg)} characters of SVG, at most {LONGEST_SVG}")
    return svg


PLAIN_FORMS: Mapping[str, Callable[[SourceImage], dict[str, Any] | str]] = {
    "describe": describe,
    "palette": palette,
    "vectorize": vectorize,
}
PACKAGES = {"describe": ("imagehash",), "palette": (), "vectorize": ("vtracer",)}
"""What each of them imports."""
