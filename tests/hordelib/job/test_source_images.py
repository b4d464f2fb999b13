"""Files of strangers, and what becomes of them."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, TiffImagePlugin

from hordelib.errors import BadSource
from hordelib.job.image_files import MAX_BYTES, Decoded, alpha_mask, decode, decode_mask
from hordelib.job.images import SourceImage
from tests.support.bounds import bounded, frugal, peak_bytes

RED, BLUE, GREY = (255, 0, 0), (0, 0, 255), (128, 128, 128)
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
ORIENTATION = 274
complains = pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # about damage, and reads on


def half_red(size: tuple[int, int] = (64, 32)) -> Image.Image:
    """Red above, blue below."""
    image = Image.new("RGB", size, BLUE)
    image.paste(RED, (0, 0, size[0], size[1] // 2))
    return image


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    target = io.BytesIO()
    image.save(target, kind, **options)
    return target.getvalue()


def at(image: SourceImage, x: int, y: int) -> tuple[int, ...]:
    start = (y * image.width + x) * len(image.mode)
    return tuple(image.pixels[start : start + len(image.mode)])


def is_near(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    return all(abs(a - b) <= 12 for a, b in zip(one, other, strict=True))


def chunk(name: bytes, content: bytes) -> bytes:
    check = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", check)


def png_with(extra: bytes) -> bytes:
    plain = encoded(half_red())
    return plain[:33] + extra + plain[33:]


def png_of(width: int, height: int, bits: int, colours: int, rows: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, 0)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            chunk(b"IDAT", zlib.compress(rows)),
            chunk(b"IEND", b""),
        )
    )


def vp8l(width: int, height: int) -> bytes:
    """A lossless WebP of 34 bytes, in one colour, of any size."""
    content = b"\x2f" + struct.pack("<I", (width - 1) | (height - 1) << 14) + b"\x88\x88\x08"
    content += b"\0" * (-len(content) % 2)
    body = b"WEBPVP8L" + struct.pack("<I", len(content)) + content
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize("kind", FORMATS)
def test_each_format_gives_its_picture(kind: str):
    image = decode(encoded(half_red(), kind)).image
    assert (image.width, image.height, image.mode) == (64, 32, "RGB")
    assert is_near(at(image, 32, 4), RED)
    assert is_near(at(image, 32, 28), BLUE)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr"])
def test_each_opaque_mode_becomes_colours(mode: str):
    kind = "JPEG" if mode in ("CMYK", "YCbCr") else "PNG"
    image = decode(encoded(Image.new("RGB", (8, 8), "white").convert(mode), kind)).image
    assert image.mode == "RGB"
    assert is_near(at(image, 4, 4), (255, 255, 255))


@pytest.mark.parametrize("colours", [0, 2], ids=["grey", "colours"])
def test_sixteen_bits_keep_their_brightness(colours: int):
    rows = b"\0" + struct.pack(">H", 32768) * (3 if colours else 1)
    assert is_near(at(decode(png_of(1, 1, 16, colours, rows)).image, 0, 0), GREY)


def test_a_sixteen_bit_tiff_keeps_its_brightness():
    for mode, letter in (("I;16", "<"), ("I;16B", ">")):
        deep = Image.frombytes(mode, (2, 1), struct.pack(f"{letter}2H", 0, 32768))
        assert is_near(at(decode(encoded(deep, "TIFF")).image, 1, 0), GREY)


TONES = (0, 64, 128, 255)


def tiff_of_grey(bits: int, is_negative: bool, content: bytes) -> bytes:
    """Four pixels in a row, of so many bits each."""
    tags = {256: len(TONES), 257: 1, 258: bits, 259: 1, 262: 0 if is_negative else 1, 273: 8}
    tags |= {277: 1, 278: 1, 279: len(content)}
    content += b"\0" * (len(content) % 2)
    rows = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    directory = struct.pack("<H", len(tags)) + rows + bytes(4)
    return struct.pack("<2sHI", b"II", 42, 8 + len(content)) + content + directory


DEEP = {
    "16 bits": tiff_of_grey(16, False, struct.pack("<4H", *(tone * 257 for tone in TONES))),
    "16 bits, negative": tiff_of_grey(
        16, True, struct.pack("<4H", *(65535 - tone * 257 for tone in TONES))
    ),
    "12 bits": tiff_of_grey(12, False, bytes.fromhex("000404808fff")),
    "8 bits, negative": tiff_of_grey(8, True, bytes(255 - tone for tone in TONES)),
    "fractions": encoded(
        Image.frombytes("F", (4, 1), struct.pack("<4f", *(tone / 255 for tone in TONES))), "TIFF"
    ),
    "32 bits with small numbers": encoded(
        Image.frombytes("I", (4, 1), struct.pack("<4i", *(tone * 257 for tone in TONES))), "TIFF"
    ),
}


@pytest.mark.parametrize("name", DEEP)
def test_grey_of_any_depth_keeps_its_brightness(name: str):
    image = decode(DEEP[name]).image
    found = [at(image, x, 0)[0] for x in range(len(TONES))]
    assert found == pytest.approx(TONES, abs=1)
    mask = decode_mask(DEEP[name]).image
    assert [at(mask, x, 0)[0] for x in range(len(TONES))] == pytest.approx(TONES, abs=1)


@pytest.mark.parametrize(
    ("mode", "values", "told"),
    [
        ("F", (0.0, 255.0), r"grey values of 0 to 255: expected fractions, 0 to 1"),
        ("F", (-0.5, 0.5), r"grey values of -0.5 to 0.5: expected fractions"),
        ("F", (0.5, float("nan")), r"grey values of nan to nan: expected fractions"),
        ("F", (0.5, float("inf")), r"grey values of 0.5 to inf: expected fractions"),
        ("I", (0, 65536), r"grey values of 0 to 65536: expected 0 to 65535"),
        ("I", (-1, 100), r"grey values of -1 to 100: expected 0 to 65535"),
    ],
)
def test_grey_of_an_unknown_scale_is_refused_by_its_values(
    mode: str, values: tuple[float, ...], told: str
):
    content = struct.pack("<2f" if mode == "F" else "<2i", *values)
    picture = encoded(Image.frombytes(mode, (2, 1), content), "TIFF")
    for read in (decode, decode_mask):
        with pytest.raises(BadSource, match=told):
            read(picture)


@pytest.mark.parametrize("mode", sorted({row[0] for row in TiffImagePlugin.OPEN_INFO.values()}))
def test_every_mode_of_a_tiff_is_as_bright_as_it_was(mode: str):
    white = {"F": 1.0, "I": 65535, "I;16": 65535, "I;16B": 65535}.get(mode)
    image = Image.new("RGB", (8, 8), "white")
    if white is not None:
        image = Image.new(mode, (8, 8), white)
    elif mode == "LAB":
        image = Image.frombytes("LAB", (8, 8), b"\xff\x00\x00" * 64)
    else:
        image = image.convert(mode)
    assert is_near(at(decode(encoded(image, "TIFF")).image, 4, 4), (255, 255, 255))


def test_transparency_stays_and_so_does_what_is_under_it():
    source = half_red().convert("RGBA")
    source.putalpha(0)
    source.paste((*BLUE, 255), (0, 0, 8, 8))
    image = decode(encoded(source)).image
    assert (at(image, 4, 4), at(image, 60, 4)) == ((*BLUE, 255), (*RED, 0))


def test_grey_and_palette_images_may_be_transparent():
    palette = encoded(half_red().quantize(2), transparency=0)
    grey = encoded(Image.new("LA", (8, 8), (128, 0)))
    assert [decode(file).image.mode for file in (palette, grey)] == ["RGBA", "RGBA"]


def test_an_opaque_alpha_channel_is_none():
    assert decode(encoded(half_red().convert("RGBA"))).image.mode == "RGB"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize(
    ("orientation", "red"),
    [
        (1, "top"),
        (3, "bottom"),
        (4, "bottom"),
        (5, "left"),
        (6, "right"),
        (7, "right"),
        (8, "left"),
    ],
)
def test_a_picture_is_turned_as_its_exif_says(kind: str, orientation: int, red: str):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    image = decode(encoded(half_red(), kind, exif=exif)).image
    turned = red in ("left", "right")
    assert (image.width, image.height) == ((32, 64) if turned else (64, 32))
    place = {"top": (16, 4), "bottom": (16, 28), "left": (4, 32), "right": (28, 32)}[red]
    assert is_near(at(image, *place), RED)


@complains
def test_a_damaged_exif_block_leaves_the_picture_as_it_is():
    image = decode(encoded(half_red(), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")).image
    assert is_near(at(image, 32, 4), RED)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame_is_used_and_it_is_said(kind: str):
    frames = {"save_all": True, "append_images": [Image.new("RGB", (64, 32), "lime")]}
    decoded = decode(encoded(half_red(), kind, **frames))
    assert is_near(at(decoded.image, 32, 4), RED)
    assert decoded.changes == ("only the first frame of the animation was used",)


def test_a_picture_larger_than_any_of_the_horde_is_made_smaller():
    image = decode(encoded(half_red((4000, 40)), "PNG")).image
    assert (image.width, image.height) == (3072, 31)
    assert is_near(at(image, 1500, 2), RED)


def test_making_it_smaller_keeps_the_colours_under_the_transparency():
    source = half_red((4000, 40)).convert("RGBA")
    source.putalpha(0)
    assert is_near(at(decode(encoded(source)).image, 1500, 2), (*RED, 0))


def test_a_line_of_one_pixel_stays_a_line():
    image = decode(encoded(half_red((16000, 1)), "PNG")).image
    assert (image.width, image.height) == (3072, 1)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9",
        b"%PDF-1.7",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"<?xml version='1.0'?><svg/>",
        b"RIFF\x04\0\0\0AVI ",
        b"P6 9 9 255 ",
        encoded(half_red(), "ICO"),
        encoded(half_red(), "JPEG2000"),
    ],
    ids=["empty", "eps", "pdf", "svg", "xml", "avi", "ppm", "ico", "jpeg2000"],
)
def test_other_types_are_refused_by_name(data: bytes):
    with pytest.raises(BadSource, match=r"source_mask: starts with b.*expected a PNG, JPEG"):
        decode(data, "source_mask")


@pytest.mark.parametrize(
    "data",
    [
        vp8l(16383, 16383),
        png_of(30_000, 30_000, 1, 0, b"\0"),
        b"BM" + struct.pack("<IHHIIiiHHIIiiII", 0, 0, 0, 54, 40, 65535, 65535, 1, 24, *[0] * 6),
        b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0)
        + b"," + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0) + b"\2\0;",
    ],
    ids=["webp", "png", "bmp", "gif"],
)  # fmt: skip
def test_a_bomb_is_refused_by_its_header_alone(data: bytes):
    before = peak_bytes()
    with pytest.raises(BadSource, match=r"source_image: \d+x\d+ pixels: at most 16(777216|384)"):
        decode(data)
    assert peak_bytes() - before < 16 * 2**20


def test_more_bytes_than_are_read_are_not_looked_at():
    with pytest.raises(BadSource, match=f"{MAX_BYTES + 1} bytes: at most {MAX_BYTES}"):
        decode(bytes(MAX_BYTES + 1))


@pytest.mark.parametrize("name", [b"zTXt", b"iCCP"])
def test_compressed_text_and_profiles_can_not_fill_the_memory(name: bytes):
    bomb = chunk(name, b"name\0\0" + zlib.compress(bytes(64 * 2**20)))
    before = peak_bytes()
    with pytest.raises(BadSource, match=r"PNG file is damaged: .*too large"):
        decode(png_with(bomb))
    assert peak_bytes() - before < 16 * 2**20


# ---- files of few bytes and much work ---------------------------------------------------------


def fields(count: int, content: bytes = b"") -> bytes:
    """A directory of TIFF that reads the same MiB for each of its fields; also what Exif is."""
    row = struct.pack("<HHII", 40_000, 7, 1 << 20, 8)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", count) + row * count + bytes(4) + content


def strips(count: int) -> bytes:
    """An uncompressed TIFF file with a place for each row, and as many more as wanted."""
    rows = [(256, 4, 1, 64), (257, 4, 1, 64), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]
    rows += [(273, 4, count, 8 + 2 + 9 * 12 + 4), (277, 3, 1, 1), (278, 4, 1, 1), (279, 4, 1, 64)]
    packed = b"".join(struct.pack("<HHII", *row) for row in rows)
    places = struct.pack("<I", 8) * count
    return b"II*\0\x08\0\0\0" + struct.pack("<H", 9) + packed + bytes(4) + places


def gif_with(extra: bytes) -> bytes:
    plain = encoded(half_red(), "GIF")
    start = plain.index(b",", 13 + 3 * (2 << (plain[10] & 7)))
    return plain[:start] + extra + plain[start:]


def jpeg_with(extra: bytes) -> bytes:
    plain = encoded(half_red(), "JPEG")
    return plain[:2] + extra + plain[20:]  # without JFIF, Pillow asks Exif for the resolution


def packed_bmp(rows: bytes) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, 4096, 4096, 1, 8, 1, 0, 0, 0, 256, 256)
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, 1078) + header + bytes(1024) + rows


EXIF = b"Exif\0\0" + fields(5000)
MIB = zlib.compress(bytes(1 << 20), 9)
WORK: dict[str, tuple[bytes, str]] = {
    "a line of 16 million pixels": (
        png_of(1, 1 << 24, 8, 0, bytes(1 << 25)),
        "1x16777216 pixels: at most 16384 a side",
    ),
    "PNG profiles": (png_with(chunk(b"iCCP", b"n\0\0" + MIB) * 800), "800 packed chunks"),
    "PNG texts": (png_with(chunk(b"zTXt", b"n\0\0" + MIB) * 101), "101 packed chunks"),
    "PNG chunks": (png_with(chunk(b"abCd", b"") * 200_000), "10001 chunks"),
    "GIF comments": (gif_with(b"\x21\xfe\1a\0" * 200_000), "blocks of extensions"),
    "one GIF comment": (gif_with(b"\x21\xfe" + b"\1a" * 400_000 + b"\0"), "blocks of extensions"),
    "GIF gaps": (gif_with(bytes(1_000_000)), "1001 blocks of extensions"),
    "GIF blocks": (
        encoded(half_red(), "GIF")[:-2] + b"\1a" * 400_000 + b"\0;",
        "blocks: at most 100000",
    ),
    "TIFF fields": (fields(60_000, bytes(1 << 20)), "bytes of values"),
    "TIFF strips": (strips(400_000), "400000 strips or tiles"),
    "JPEG Exif": (
        jpeg_with((b"\xff\xe1" + struct.pack(">H", len(EXIF) + 2) + EXIF) * 40),
        "40 blocks of Exif",
    ),
    "BMP runs": (packed_bmp(bytes(2_000_000)), "a packed BMP file"),
}


@pytest.mark.parametrize("name", WORK)
def test_a_small_file_of_much_work_is_refused_before_it_is_done(name: str):
    data, reason = WORK[name]
    with bounded(seconds=1), pytest.raises(BadSource, match=f"source_image: .*{reason}"):
        decode(data)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_fields_of_exif_that_share_their_values_cost_nothing(kind: str):
    options: dict[str, object] = {"exif": fields(60_000, bytes(1 << 20))}
    with bounded(seconds=1):
        assert is_near(at(decode(encoded(half_red(), kind, **options)).image, 32, 4), RED)


def test_a_jpeg_of_endless_scans_is_refused():
    plain = encoded(half_red(), "JPEG", progressive=True)
    last = plain.rindex(b"\xff\xda")
    with pytest.raises(BadSource, match=r"a JPEG file of \d+ scans: at most 100"):
        decode(plain[:last] + plain[last:-2] * 500 + plain[-2:])


def test_a_jpeg_of_endless_comments_is_refused():
    plain = encoded(half_red(), "JPEG")
    with pytest.raises(BadSource, match="a JPEG file of 20001 segments: at most 10000"):
        decode(plain[:2] + b"\xff\xfe\0\2" * 20_000 + plain[2:])


@pytest.mark.parametrize("kind", FORMATS)
def test_half_a_file_is_damaged(kind: str):
    whole = encoded(Image.effect_noise((64, 64), 90).convert("RGB"), kind)
    with pytest.raises(BadSource, match=f"source_image: the {kind} file is damaged: "):
        decode(whole[: len(whole) // 2])


def outcome(read: Callable[[bytes], Decoded], data: bytes) -> None:
    """Pixels or BadSource, and nothing else."""
    with suppress(BadSource):
        image = read(data).image
        assert len(image.pixels) == image.width * image.height * len(image.mode)


SAMPLES = [
    *(encoded(half_red((24, 16)), kind) for kind in FORMATS),
    *(encoded(half_red((24, 16)).convert("RGBA"), kind) for kind in ("PNG", "WEBP", "TIFF")),
]


@complains
@settings(max_examples=400, deadline=None, database=None, derandomize=True)
@given(st.sampled_from(SAMPLES), st.integers(0, 2**32))
@frugal
def test_damaged_files_give_pixels_or_a_reason(sample: bytes, seed: int):
    chance = random.Random(seed)
    broken = bytearray(sample[: chance.randint(1, len(sample))] if seed % 2 else sample)
    for _ in range(chance.randint(0, 8)):
        broken[chance.randrange(len(broken))] = chance.choice((0, 1, 127, 128, 255))
    outcome(decode, bytes(broken))
    outcome(decode_mask, bytes(broken))


@settings(max_examples=100, deadline=None, database=None, derandomize=True)
@given(st.binary(max_size=200))
@frugal
def test_any_bytes_give_pixels_or_a_reason(data: bytes):
    outcome(decode, data)


# ---- masks -----------------------------------------------------------------------------------


def left_half(mode: str, inside: object, outside: object) -> Image.Image:
    image = Image.new(mode, (64, 32), outside)  # pyright: ignore[reportArgumentType]
    image.paste(inside, (0, 0, 32, 32))  # pyright: ignore[reportArgumentType]
    return image


@pytest.mark.parametrize(
    ("mode", "inside", "outside"),
    [
        ("1", 1, 0),
        ("L", 255, 0),
        ("RGB", (255, 255, 255), (0, 0, 0)),
        ("RGBA", (255, 255, 255, 255), (0, 0, 0, 255)),
        ("RGBA", (255, 255, 255, 255), (255, 255, 255, 0)),  # white strokes on nothing
        ("RGBA", (0, 0, 0, 0), (0, 0, 0, 255)),  # a hole in black
    ],
)
def test_a_mask_is_white_where_to_repaint(mode: str, inside: object, outside: object):
    mask = decode_mask(encoded(left_half(mode, inside, outside))).image
    assert mask.mode == "L"
    assert (at(mask, 10, 10), at(mask, 50, 10)) == ((255,), (0,))


def test_a_mask_that_went_through_lossy_webp_is_clean():
    mask = decode_mask(encoded(left_half("RGB", "white", "black"), "WEBP", quality=50)).image
    assert set(mask.pixels) == {0, 255}


def test_the_edge_of_a_soft_mask_stays_soft():
    assert at(decode_mask(encoded(Image.new("L", (8, 8), 100))).image, 4, 4) == (100,)


def test_the_transparent_parts_of_an_image_are_a_mask():
    source = decode(encoded(left_half("RGBA", (255, 0, 0, 0), (255, 0, 0, 255)))).image
    mask = alpha_mask(source)
    assert (at(mask, 10, 10), at(mask, 50, 10)) == ((255,), (0,))
