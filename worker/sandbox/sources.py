"""Clients' source pictures, and images that a worker sends inside its submit.

The horde re-encodes all of them to WebP, so a worker never sees the client's own bytes.
"""

from __future__ import annotations

import asyncio
import binascii
import io
from base64 import b64decode
from dataclasses import dataclass

import aiohttp
from PIL import Image

from worker.sandbox.errors import Refusal
from worker.sandbox.kinds.alchemy_records import MOST_TILES, SourcePicture, tiles_of
from worker.sandbox.kinds.alchemy_wire import InterrogateBody
from worker.sandbox.wire import GenerateBody

DOWNLOAD_SECONDS = 2
DOWNLOAD_BYTES = 5 * 1024 * 1024
QUALITY = 95


@dataclass(frozen=True, slots=True)
class Pictures:
    """The pictures of one request, as WebP."""

    image: bytes | None = None
    has_alpha: bool = False
    from_url: bool = False
    mask: bytes | None = None
    extras: tuple[bytes, ...] = ()


async def load(body: GenerateBody) -> Pictures:
    """Read or fetch what the request refers to. Raises Refusal ImageValidationFailed."""
    if body.source_image is None:
        return Pictures(extras=await _load_extras(body))
    image, has_alpha = await _load_one(body.source_image)
    mask = None if body.source_mask is None else (await _load_one(body.source_mask))[0]
    return Pictures(
        image=image,
        has_alpha=has_alpha,
        from_url=_is_url(body.source_image),
        mask=mask,
        extras=await _load_extras(body),
    )


async def load_for_forms(body: InterrogateBody) -> SourcePicture:
    """The picture of a request for alchemy. One behind an address is looked at, and not kept."""
    text = body.source_image
    rc = "SourceImageUrlInvalid" if _is_url(text) else "ImageValidationFailed"
    try:
        raw = await _download(text) if _is_url(text) else b64decode(text)
        with Image.open(io.BytesIO(raw)) as opened:
            width, height = opened.size
        if tiles_of(width, height) > MOST_TILES:
            raise Refusal("SourceImageResolutionExceeded")
        if _is_url(text):
            return SourcePicture(None, text, width, height)
        webp, _ = await asyncio.to_thread(_to_webp, raw)
    except (aiohttp.ClientError, TimeoutError, binascii.Error, OSError, ValueError) as error:
        raise Refusal(rc) from error
    return SourcePicture(webp, "", width, height)


def embedded_image(generation: str) -> bytes | None:
    """The WebP of a base64 image, or None if the text is none."""
    try:
        return _to_webp(b64decode(generation))[0]
    except (binascii.Error, OSError, ValueError):
        return None


async def _load_extras(body: GenerateBody) -> tuple[bytes, ...]:
    extras = body.extra_source_images
    return tuple([(await _load_one(extra.image))[0] for extra in extras])


async def _load_one(text: str) -> tuple[bytes, bool]:
    try:
        raw = await _download(text) if _is_url(text) else b64decode(text)
        return await asyncio.to_thread(_to_webp, raw)
    except (aiohttp.ClientError, TimeoutError, binascii.Error, OSError, ValueError) as error:
        raise Refusal("ImageValidationFailed") from error


def _is_url(text: str) -> bool:
    return text.startswith(("http://", "https://"))


async def _download(url: str) -> bytes:
    timeout = aiohttp.ClientTimeout(total=DOWNLOAD_SECONDS)
    async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url) as reply:
        reply.raise_for_status()
        data = await reply.content.read(DOWNLOAD_BYTES + 1)
        while len(data) <= DOWNLOAD_BYTES and (more := await reply.content.read(DOWNLOAD_BYTES)):
            data += more
    if len(data) > DOWNLOAD_BYTES:
        raise ValueError("the source image is larger than 5 MB")
    return data


def _to_webp(raw: bytes) -> tuple[bytes, bool]:
    """The picture as WebP, and whether it has transparency."""
    with Image.open(io.BytesIO(raw)) as opened:
        has_alpha = opened.has_transparency_data
        picture = opened.convert("RGBA" if has_alpha else "RGB")
    target = io.BytesIO()
    # exact: the colours under a fully transparent area are what inpainting may start from.
    picture.save(target, "WEBP", quality=QUALITY, exact=True)
    return target.getvalue(), has_alpha
