"""What a job starts from: every pairing of processing, picture and mask."""

from __future__ import annotations

import pytest
from PIL import Image

from hordelib.errors import InvalidParams
from hordelib.job.images import SourceImage
from hordelib.job.notes import GenMetadata, MetadataType, MetadataValue
from hordelib.job.params import FromImage, Inpaint, Remix, Source, TextOnly
from hordelib.job.starts import Sourced, Sources, to_source

SIZE = (64, 32)


def opaque() -> SourceImage:
    return SourceImage.of_pil(Image.new("RGB", SIZE, "red"))


def half_transparent() -> SourceImage:
    """Red all over, and transparent on the left."""
    image = Image.new("RGBA", SIZE, "red")
    image.paste((255, 0, 0, 0), (0, 0, 32, 32))
    return SourceImage.of_pil(image, "RGBA")


def mask_of(size: tuple[int, int] = SIZE, *, white: bool = True) -> SourceImage:
    """White on the right."""
    image = Image.new("L", size)
    if white:
        image.paste(255, (size[0] // 2, 0, *size))
    return SourceImage.of_pil(image, "L")


def sourced(processing: str, *, inpaints: bool = False, **pictures: SourceImage | None) -> Sourced:
    return to_source(
        processing,
        Sources(image=pictures.get("image"), mask=pictures.get("mask")),
        inpaints=inpaints,
    )


def repainted(source: Source) -> tuple[bool, bool]:
    """Whether the left and the right are."""
    assert isinstance(source, Inpaint)
    assert (source.mask.width, source.mask.height) == (source.image.width, source.image.height)
    mask = source.mask.to_pil()
    return mask.getpixel((4, 4)) == 255, mask.getpixel((source.mask.width - 4, 4)) == 255


def colour(image: SourceImage, x: int = 4) -> object:
    assert image.mode == "RGB"
    return image.to_pil().getpixel((x, 4))


def only_note(of: Sourced) -> GenMetadata:
    assert len(of.notes) == 1
    return of.notes[0]


def test_img2img_without_a_picture_is_text_to_image():
    assert sourced("img2img") == Sourced(TextOnly())


def test_img2img_starts_from_the_picture():
    assert sourced("img2img", image=opaque()) == Sourced(FromImage(opaque()))


def test_img2img_takes_transparent_parts_as_white_and_says_so():
    result = sourced("img2img", image=half_transparent())
    assert isinstance(result.source, FromImage)
    assert colour(result.source.image) == (255, 255, 255)
    assert colour(result.source.image, 60) == (255, 0, 0)
    assert only_note(result).type is MetadataType.SOURCE_IMAGE


def test_img2img_with_a_mask_repaints_under_the_mask():
    result = sourced("img2img", image=opaque(), mask=mask_of())
    assert repainted(result.source) == (False, True)
    assert result.notes == ()


def test_a_mask_without_a_picture_is_disclosed():
    result = sourced("img2img", mask=mask_of())
    assert result.source == TextOnly()
    assert only_note(result).type is MetadataType.SOURCE_MASK


@pytest.mark.parametrize("processing", ["inpainting", "outpainting"])
class TestRepainting:
    def test_a_mask_of_its_own_counts(self, processing: str):
        result = sourced(processing, image=opaque(), mask=mask_of())
        assert repainted(result.source) == (False, True)
        assert result.notes == ()

    def test_transparent_parts_are_repainted_from_the_colours_under_them(self, processing: str):
        result = sourced(processing, image=half_transparent())
        assert repainted(result.source) == (True, False)
        assert isinstance(result.source, Inpaint)
        assert colour(result.source.image) == (255, 0, 0)
        assert result.notes == ()

    def test_a_mask_goes_before_transparent_parts(self, processing: str):
        result = sourced(processing, image=half_transparent(), mask=mask_of())
        assert repainted(result.source) == (False, True)

    def test_without_both_all_is_repainted_and_it_is_said(self, processing: str):
        result = sourced(processing, image=opaque())
        assert repainted(result.source) == (True, True)
        note = only_note(result)
        assert (note.type, note.value) == (MetadataType.SOURCE_MASK, MetadataValue.PARSE_FAILED)

    def test_without_a_picture_it_is_text_to_image_and_that_is_said(self, processing: str):
        result = sourced(processing, mask=mask_of())
        assert result.source == TextOnly()
        assert "source image is missing" in str(only_note(result).ref)


def test_a_mask_of_another_size_covers_the_picture():
    result = sourced("inpainting", image=opaque(), mask=mask_of((256, 128)))
    assert repainted(result.source) == (False, True)
    assert result.notes == ()


def test_a_mask_of_another_shape_is_stretched_and_it_is_said():
    result = sourced("inpainting", image=opaque(), mask=mask_of((32, 32)))
    assert repainted(result.source) == (False, True)
    assert only_note(result).ref == "the mask of 32x32 was stretched to the source image of 64x32"


def test_a_black_mask_is_obeyed_and_it_is_said():
    result = sourced("inpainting", image=opaque(), mask=mask_of(white=False))
    assert repainted(result.source) == (False, False)
    assert "black all over" in str(only_note(result).ref)


def test_a_model_that_inpaints_gets_a_mask_in_every_job():
    result = sourced("img2img", image=opaque(), inpaints=True)
    assert repainted(result.source) == (True, True)
    assert only_note(result).type is MetadataType.SOURCE_MASK


def test_a_model_that_inpaints_gets_a_picture_in_every_job():
    result = sourced("img2img", inpaints=True)
    assert repainted(result.source) == (True, True)
    note = only_note(result)
    assert (note.type, note.value) == (MetadataType.SOURCE_IMAGE, MetadataValue.PARSE_FAILED)


def test_remix_has_the_picture_and_the_extra_ones_with_their_strengths():
    sources = Sources(image=opaque(), extras=((half_transparent(), 0.5),))
    source = to_source("remix", sources, inpaints=False).source
    assert isinstance(source, Remix)
    assert [(image.mode, strength) for image, strength in source.images] == [
        ("RGB", 1.0),
        ("RGB", 0.5),
    ]


def test_remix_without_a_picture_is_made_of_the_extra_ones():
    sources = Sources(extras=((half_transparent(), 0.5),))
    source = to_source("remix", sources, inpaints=False).source
    assert isinstance(source, Remix)
    assert [strength for _, strength in source.images] == [0.5]


def test_remix_without_any_picture_is_text_to_image_and_that_is_said():
    result = sourced("remix")
    assert result.source == TextOnly()
    assert only_note(result).type is MetadataType.SOURCE_IMAGE


def test_why_there_is_no_picture_is_said_once():
    note = GenMetadata(MetadataType.SOURCE_IMAGE, MetadataValue.DOWNLOAD_FAILED, "gone")
    assert to_source("remix", Sources(notes=(note,)), inpaints=False).notes == (note,)


def test_an_unknown_processing_is_refused():
    with pytest.raises(InvalidParams, match="source_processing='collage': expected one of img2img"):
        sourced("collage", image=opaque())


def test_notes_of_the_files_are_kept():
    note = GenMetadata(MetadataType.SOURCE_IMAGE, MetadataValue.SEE_REF, "first frame")
    result = to_source("img2img", Sources(image=opaque(), notes=(note,)), inpaints=False)
    assert result.notes == (note,)
