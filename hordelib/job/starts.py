"""What a job starts from: the pictures that it brought, and what it wants done with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from PIL import Image

from hordelib.errors import InvalidParams
from hordelib.job.image_files import alpha_mask
from hordelib.job.images import SourceImage
from hordelib.job.notes import GenMetadata, MetadataType, MetadataValue
from hordelib.job.params import FromImage, Inpaint, Remix, Source, TextOnly

_GREY = SourceImage.of_pil(Image.new("RGB", (64, 64), (128, 128, 128)))
_SAME_SHAPE = 0.02  # of the aspect ratio; sizes are whole pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """The decoded pictures of a job. `extras` have the strengths that their client gave them."""

    image: SourceImage | None = None
    mask: SourceImage | None = None
    extras: tuple[tuple[SourceImage, float], ...] = ()
    notes: tuple[GenMetadata, ...] = ()


@dataclass(frozen=True, slots=True)
class Sourced:
    """What to start from, and the notes about it that every picture of the job carries."""

    source: Source
    notes: tuple[GenMetadata, ...] = ()


def to_source(processing: str, sources: Sources, *, inpaints: bool) -> Sourced:
    """Bring `source_processing` and the pictures together; `inpaints`: the model needs a mask.

    The horde says "img2img" for text to image too: without a picture it is that. A model that
    inpaints gets a mask and a picture whatever the job is, plain ones if need be. What a job lacks,
    or could not be had, costs no more than its own part: without a picture, it is text to image,
    with a note. Raises InvalidParams for an unknown processing.
    """
    if processing not in _KINDS:
        raise InvalidParams("source_processing", processing, "one of " + ", ".join(_KINDS))
    sourced = _repaint_anything(sources) if inpaints else _KINDS[processing](sources)
    return replace(sourced, notes=(*sources.notes, *sourced.notes))


def flattened(image: SourceImage) -> SourceImage:
    """Without transparency: laid on white, as most programs show it. Others pass unchanged."""
    if image.mode != "RGBA":
        return image
    white = Image.new("RGBA", (image.width, image.height), "white")
    return SourceImage.of_pil(Image.alpha_composite(white, image.to_pil()))


def _img2img(sources: Sources) -> Sourced:
    if sources.image is None:
        return _from_text(sources)
    if sources.mask is not None:
        return _repaint(sources.image, sources.mask)
    return Sourced(FromImage(flattened(sources.image)), _flattening(sources.image))


def _from_text(sources: Sources) -> Sourced:
    unused = sources.mask is not None
    told = "there is no source image that the mask could belong to"
    return Sourced(TextOnly(), (_of_mask(MetadataValue.PARSE_FAILED, told),) if unused else ())


def _inpainting(sources: Sources) -> Sourced:
    """The mask, or else the transparent parts, or else the whole picture."""
    if sources.image is None:
        return _without_picture(sources)
    if sources.mask is not None:
        return _repaint(sources.image, sources.mask)
    mask = alpha_mask(sources.image) if sources.image.mode == "RGBA" else None
    if mask is not None and _is_any_white(mask):
        return Sourced(Inpaint(_colours(sources.image), mask))
    return _repaint_all(_colours(sources.image))


def _repaint_anything(sources: Sources) -> Sourced:
    if sources.image is not None:
        return _inpainting(sources)
    told = "the model repaints pictures and none was sent: a plain grey one was used"
    note = GenMetadata(MetadataType.SOURCE_IMAGE, MetadataValue.PARSE_FAILED, told)
    return Sourced(Inpaint(_GREY, _all_white(_GREY)), (note,))


def _without_picture(sources: Sources) -> Sourced:
    """Text to image, where the job needs a picture: the note of why there is none may be there."""
    told = "the source image is missing: the picture was made from the prompt alone"
    note = GenMetadata(MetadataType.SOURCE_IMAGE, MetadataValue.PARSE_FAILED, told)
    is_told = any(each.type is MetadataType.SOURCE_IMAGE for each in sources.notes)
    return Sourced(TextOnly(), () if is_told else (note,))


def _remix(sources: Sources) -> Sourced:
    """The source image has strength 1; the extra ones have their own."""
    if sources.image is None and not sources.extras:
        return _without_picture(sources)
    first = [] if sources.image is None else [(flattened(sources.image), 1.0)]
    extras = [(flattened(image), strength) for image, strength in sources.extras]
    notes = () if sources.image is None else _flattening(sources.image)
    return Sourced(Remix((*first, *extras)), notes)


_KINDS: Mapping[str, Callable[[Sources], Sourced]] = MappingProxyType(
    {
        "img2img": _img2img,
        "inpainting": _inpainting,
        "outpainting": _inpainting,  # the canvas comes with the picture
        "remix": _remix,
    }
)


def _repaint(image: SourceImage, mask: SourceImage) -> Sourced:
    """Under a mask of its own, an image is never transparent."""
    return Sourced(
        Inpaint(flattened(image), _fitted(mask, image)),
        (*_flattening(image), *_oddities(mask, image)),
    )


def _repaint_all(image: SourceImage) -> Sourced:
    told = "neither a mask nor transparent parts were found: the whole picture was repainted"
    return Sourced(Inpaint(image, _all_white(image)), (_of_mask(MetadataValue.PARSE_FAILED, told),))


def _oddities(mask: SourceImage, image: SourceImage) -> tuple[GenMetadata, ...]:
    told: list[str] = []
    if abs(mask.width * image.height / (mask.height * image.width) - 1) > _SAME_SHAPE:
        sizes = f"{mask.width}x{mask.height}", f"{image.width}x{image.height}"
        told.append(f"the mask of {sizes[0]} was stretched to the source image of {sizes[1]}")
    if not _is_any_white(mask):
        told.append("the mask is black all over: nothing was repainted")
    return tuple(_of_mask(MetadataValue.SEE_REF, line) for line in told)


def _flattening(image: SourceImage) -> tuple[GenMetadata, ...]:
    if image.mode != "RGBA":
        return ()
    told = "transparent parts of the source image were taken as white"
    return (GenMetadata(MetadataType.SOURCE_IMAGE, MetadataValue.SEE_REF, told),)


def _of_mask(value: MetadataValue, told: str) -> GenMetadata:
    return GenMetadata(MetadataType.SOURCE_MASK, value, told)


def _is_any_white(mask: SourceImage) -> bool:
    return any(mask.pixels)


def _all_white(image: SourceImage) -> SourceImage:
    return SourceImage.of_pil(Image.new("L", (image.width, image.height), 255), "L")


def _colours(image: SourceImage) -> SourceImage:
    """What is under the transparency too: repainting with a low denoising strength starts there."""
    return SourceImage.of_pil(image.to_pil())


def _fitted(mask: SourceImage, image: SourceImage) -> SourceImage:
    size = (image.width, image.height)
    if (mask.width, mask.height) == size:
        return mask
    return SourceImage.of_pil(mask.to_pil().resize(size, Image.Resampling.BILINEAR), "L")
