"""What picture files are made of, as far as it costs: found before anything is decoded.

A file of a few MB can hold hours of work or a million objects for Pillow, which reads chunks,
blocks and directories in Python, one by one, and some of them again and again.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from itertools import islice

Parts = Iterator[tuple[str, int, int]]
"""What it is, how much of it is read, and how much of it the file has, or that it has more."""

# Encoders write about 10 scans; each one more costs a pass over the whole picture. Pillow joins
# blocks of Exif, and reads each of their fields, wherever in them its value is.
_JPEG_PARTS = (("scans", 100, (0xDA,)), ("segments", 10_000, (*range(0xE0, 0xF0), 0xFE)))
_MOST_EXIF_BLOCKS = 4
_EXIF = b"Exif\0\0"

# Encoders write IDAT chunks of 8 kB and more, and one profile. Each of the packed ones is unpacked
# to as much as a MiB.
_MOST_CHUNKS, _MOST_PACKED = 10_000, 100
_PACKED = frozenset({b"iCCP", b"zTXt", b"iTXt"})

# Before the first image of a GIF are two or three blocks. An image's own have 255 bytes each.
_MOST_EXTENSIONS, _MOST_BLOCKS = 1000, 100_000

_MOST_STRIPS = 65_536
_STRIPS = (273, 324)  # StripOffsets, TileOffsets
_ORIENTATION = 274
_SHORT, _LONG = 3, 4
_VALUE_BYTES: Mapping[int, int] = {
    1: 1, 2: 1, _SHORT: 2, _LONG: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4,
    16: 8,
}  # fmt: skip


def excess(kind: str, data: bytes) -> str:
    """What a file of Pillow's format `kind` has too much of; "" where it may be read."""
    for part, most, found in _PARTS.get(kind, _none)(data):
        if found > most:
            return f"a {kind} file of {found} {part}: at most {most} are read"
    return ""


def orientation(exif: bytes) -> int:
    """How a picture was held, by its block of Exif; 1 (upright) where that does not tell."""
    try:
        for tag, kind, _, value in _fields(exif.removeprefix(_EXIF)):
            if tag == _ORIENTATION and kind in (_SHORT, _LONG):
                return value
    except struct.error:
        pass  # the picture is whole; only the note on how it was held is damaged
    return 1


def _none(_data: bytes) -> Parts:
    return iter(())


def _jpeg_parts(data: bytes) -> Parts:
    """In the data of a scan, no byte 255 stands before any of these markers (T.81, B.1.1.5)."""
    for part, most, markers in _JPEG_PARTS:
        yield part, most, sum(data.count(bytes((0xFF, marker))) for marker in markers)
    yield "blocks of Exif", _MOST_EXIF_BLOCKS, data.count(_EXIF)


def _png_parts(data: bytes) -> Parts:
    kinds = list(islice(_png_chunks(data), _MOST_CHUNKS + 1))
    yield "chunks", _MOST_CHUNKS, len(kinds)
    yield "packed chunks", _MOST_PACKED, sum(kind in _PACKED for kind in kinds)


def _png_chunks(data: bytes) -> Iterator[bytes]:
    """Their names (PNG specification, 5.3: length, name, content, CRC)."""
    at, kind = 8, b""
    while at + 8 <= len(data) and kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, at)
        yield kind
        at += length + 12


def _gif_parts(data: bytes) -> Parts:
    """Those up to the second image: by it, a picture is known to be an animation."""
    at, extensions, blocks, images = 13 + _colours(data, 10), 0, 0, 0
    while at < len(data) and data[at] != 0x3B and images < 2:  # the trailer
        if data[at] == 0x2C:  # an image: its place, its colours, its size of codes
            images += 1
            found, at = _blocks(data, at + 11 + _colours(data, at + 9), _MOST_BLOCKS)
            blocks += found
        elif data[at] == 0x21:  # an extension: its kind
            found, at = _blocks(data, at + 2, _MOST_EXTENSIONS)
            extensions += found + 1
        else:  # Pillow passes over it
            extensions, at = extensions + 1, at + 1
        if extensions > _MOST_EXTENSIONS or blocks > _MOST_BLOCKS:
            break
    yield "blocks of extensions", _MOST_EXTENSIONS, extensions
    yield "blocks", _MOST_BLOCKS, blocks


def _colours(data: bytes, at: int) -> int:
    """Bytes of the table of colours that these flags announce (GIF89a, 18 and 20)."""
    flags = data[at] if at < len(data) else 0
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _blocks(data: bytes, at: int, most: int) -> tuple[int, int]:
    """How many there are until an empty one, or one more than `most`; and where they end."""
    found = 0
    while at < len(data) and data[at] and found <= most:
        found, at = found + 1, at + data[at] + 1
    return found, at + 1


def _tiff_parts(data: bytes) -> Parts:
    values_bytes = strips = 0
    try:
        for tag, kind, count, _ in _fields(data):
            values_bytes += count * _VALUE_BYTES.get(kind, 0)
            strips = max(strips, count) if tag in _STRIPS else strips
    except struct.error:
        pass  # damaged, as Pillow will say
    yield "bytes of values", max(len(data), 1 << 20), values_bytes
    yield "strips or tiles", _MOST_STRIPS, strips


def _fields(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Tag, type, count and value (or its place) of each field of the first directory (TIFF 6.0, 2).

    Raises struct.error where the data ends too early.
    """
    order = "<" if data.startswith(b"II") else ">"
    (start,) = struct.unpack_from(f"{order}4xI", data)
    (count,) = struct.unpack_from(f"{order}H", data, start)
    for at in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind, values, value = struct.unpack_from(f"{order}HHII", data, at)
        if kind == _SHORT:
            (value,) = struct.unpack_from(f"{order}H", data, at + 8)
        yield tag, kind, values, value


_PARTS: Mapping[str, Callable[[bytes], Parts]] = {
    "JPEG": _jpeg_parts,
    "PNG": _png_parts,
    "GIF": _gif_parts,
    "TIFF": _tiff_parts,
}
