"""What a model's file is, told by its first bytes: people and sites name files as they like."""

from __future__ import annotations

from enum import Enum
from pathlib import Path

from hordelib.errors import ModelBroken, shown

_LOOK_BYTES = 512


class FileKind(Enum):
    """The kinds of files that ComfyUI can read a model from."""

    safetensors = "safetensors"
    zipped_pickle = "pickle"  # of torch.save since torch 1.6
    old_pickle = "pickle of an old torch"


# What else is found in a model's place, by how it begins; letter case counts for nothing.
_SOMEBODY_ELSES: tuple[tuple[bytes, str, str], ...] = (
    (b"gguf", "a GGUF file, which ComfyUI alone can't read", "use a safetensors file of the model"),
    (
        b"version https://git-lfs",
        "a pointer of Git LFS, in place of the file itself",
        "run git lfs pull, or fetch it by the site's own download link",
    ),
    (b"<", "a web page, in place of the file", "fetch it again: the site may want a login for it"),
    (b"{", "a text, in place of the file", "fetch it again: the site may want a login for it"),
    (b"7z\xbc\xaf'\x1c", "an archive (7z)", "unpack it"),
    (b"rar!", "an archive (rar)", "unpack it"),
    (b"\x1f\x8b", "an archive (gzip)", "unpack it"),
    (b"\xfd7zxz", "an archive (xz)", "unpack it"),
    (b"\x89png", "a picture", "fetch the model's own file"),
    (b"\xff\xd8\xff", "a picture", "fetch the model's own file"),
    (b"riff", "a picture", "fetch the model's own file"),
    (b"\x89hdf", "an HDF5 file of Keras", "use a safetensors file of the model"),
)
# How torch before 1.6 begins a file: the pickle of a number, in each of the protocols.
_OLD_TORCH = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_ZIPS = (b"PK\x03\x04", b"PK\x05\x06")


def kind_of(path: Path) -> FileKind:
    """Reads a few hundred bytes. Raises ModelBroken, saying what it is instead, and the remedy."""
    try:
        with path.open("rb") as file:
            first = file.read(_LOOK_BYTES)
    except OSError as error:
        raise ModelBroken(f"{path}: can't be read ({error}); see to its permissions") from error
    if not first:
        raise ModelBroken(f"{path}: an empty file; fetch it again")
    if first[8:9] == b"{" and not any(first[5:8]):  # a length of less than a TiB, and JSON
        return FileKind.safetensors
    if first.startswith(_ZIPS):
        return FileKind.zipped_pickle
    if first[0:1] == b"\x80" and first[2:].startswith(_OLD_TORCH):
        return FileKind.old_pickle
    raise ModelBroken(f"{path}: {_what_else(first)}")


def _what_else(first: bytes) -> str:
    begins = first.lstrip(b"\xef\xbb\xbf\r\n\t ").lower()
    for start, what, remedy in _SOMEBODY_ELSES:
        if begins.startswith(start):
            return f"{what}; {remedy}"
    return f"no model file: it begins with {shown(first[:12])}; fetch it again"
