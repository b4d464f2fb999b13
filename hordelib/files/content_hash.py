"""A hash of the tensors of a safetensors file, in whichever order and beside whichever words.

The horde's model reference calls it `content_hash` and has it of VAEs and text encoders. It is the
sha256 over all tensors in the order of their names: name, type, shape, size and bytes of each. A
text has its length before it, a shape the number of its dimensions; each number takes 8 bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from hordelib.files.safetensors_header import StoredTensor, read_header

_STRETCH_BYTES = 8 << 20  # of which so many are in memory


def content_hash(path: Path) -> str:
    """In lower case. Raises ModelBroken for what is no whole safetensors file, and OSError."""
    header = read_header(path)
    found = hashlib.sha256()
    with path.open("rb") as file:
        for name, tensor in sorted(header.tensors.items()):
            found.update(_described(name, tensor))
            file.seek(header.bytes_before + tensor.start)
            for stretch in _stretches(file, tensor.end - tensor.start):
                found.update(stretch)
    return found.hexdigest()


def _described(name: str, tensor: StoredTensor) -> bytes:
    texts = (text.encode(errors="surrogatepass") for text in (name, tensor.dtype))
    size_bytes = tensor.end - tensor.start
    numbers = (len(tensor.shape), *tensor.shape, size_bytes)
    return b"".join(
        [*(_number(len(text)) + text for text in texts), *(_number(each) for each in numbers)]
    )


def _number(number: int) -> bytes:
    return number.to_bytes(8, "little")


def _stretches(file: BinaryIO, size_bytes: int) -> Iterator[bytes]:
    while size_bytes and (stretch := file.read(min(size_bytes, _STRETCH_BYTES))):
        size_bytes -= len(stretch)
        yield stretch
