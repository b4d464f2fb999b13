"""The header of a safetensors file, the only reader of it: names, types and shapes of its tensors.

The format is a length of 8 bytes, that many bytes of JSON, then the tensors one after the other.
Files come from strangers, so nothing of the JSON is parsed before it is known to be small: a header
of ADAPTER_BYTES is counted and parsed in two stretches of less than 0.1 s, whatever is in it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, cast

from hordelib.errors import ModelBroken, shown

# Of a LoRA's or textual inversion's header, of which a stranger is author. Trainers write how often
# each word of their captions came into it, which makes some longer than 4 MB.
ADAPTER_BYTES = 8 << 20
CHECKPOINT_BYTES = 16 << 20  # real ones have 1 MB at most
METADATA = "__metadata__"

_LENGTH_BYTES = 8
_MOST_TENSORS = 10_000  # the largest models have about 5,000
_MOST_STRINGS = 6 * _MOST_TENSORS  # a name, three keys, a type, and room for metadata
_MOST_BRACKETS = 4 * _MOST_TENSORS
_MOST_PUNCTUATION_BYTES = 80 * _MOST_TENSORS  # what a header has beside its strings
# One that never ends goes to the end of the header: looked for from each quotation mark in it
# again, its end would take a time that grows with the square.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+["\\]?', re.DOTALL)
_FIELDS = {"dtype", "shape", "data_offsets"}
_LARGEST = 1 << 63  # more than any size or offset
_MOST_DIMENSIONS = 16

# Bits of a number, by the format's names for its types.
_BITS = {
    **dict.fromkeys(("F4",), 4),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0"), 8),
    **dict.fromkeys(("F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
}


class StoredTensor(NamedTuple):
    """One tensor of a file, which is not read."""

    dtype: str  # as the format calls it, `F16` for example
    shape: tuple[int, ...]
    start: int  # in bytes after the header
    end: int


@dataclass(frozen=True, slots=True)
class SafetensorsHeader:
    """What a file says of itself; its tensors lie in it as it says, without gap or overlap."""

    tensors: Mapping[str, StoredTensor]
    metadata: Mapping[str, str]
    bytes_before: int  # what lies before the first tensor


def read_header(path: Path, most_bytes: int = CHECKPOINT_BYTES) -> SafetensorsHeader:
    """Read no more of a file than its header, of at most so many bytes.

    Raises ModelBroken, naming the file, the reason and the remedy, for whatever is wrong with it.
    """
    try:
        with path.open("rb") as file:
            length_bytes = int.from_bytes(file.read(_LENGTH_BYTES), "little")
            file_bytes = file.seek(0, 2)
            if most_bytes < length_bytes < file_bytes:
                raise ModelBroken(_too_long(path, length_bytes, most_bytes))
            if not 2 <= length_bytes <= most_bytes:
                raise ValueError(f"a header of {length_bytes} bytes: 2 to {most_bytes} are read")
            file.seek(_LENGTH_BYTES)
            content = file.read(length_bytes)
        if len(content) < length_bytes:
            raise _cut_off(path, file_bytes, _LENGTH_BYTES + length_bytes)
        tensors, metadata, tensors_bytes = _parsed(content)
    except (OSError, ValueError, RecursionError) as error:
        raise ModelBroken(f"{path}: not a safetensors file ({error}); fetch it again") from error
    if file_bytes != _LENGTH_BYTES + length_bytes + tensors_bytes:
        raise _cut_off(path, file_bytes, _LENGTH_BYTES + length_bytes + tensors_bytes)
    return SafetensorsHeader(tensors, metadata, _LENGTH_BYTES + length_bytes)


def _too_long(path: Path, length_bytes: int, most_bytes: int) -> str:
    return (
        f"{path}: a header of {length_bytes} bytes, and at most {most_bytes} are read:"
        " it has too much text beside its tensors"
    )


def _cut_off(path: Path, file_bytes: int, promised_bytes: int) -> ModelBroken:
    return ModelBroken(
        f"{path}: {file_bytes} bytes where its header promises {promised_bytes};"
        " it is cut off or damaged: fetch it again"
    )


def _parsed(content: bytes) -> tuple[dict[str, StoredTensor], dict[str, str], int]:
    """Tensors, metadata, and how many bytes of tensors are promised. Raises ValueError."""
    _insist_on_few_parts(content)
    parsed: object = json.loads(content)
    if not isinstance(parsed, dict):
        raise ValueError("its header is no list of tensors")
    entries = cast("dict[str, object]", parsed)
    metadata = _metadata(entries.pop(METADATA, None))
    tensors = {name: _tensor(name, entry) for name, entry in entries.items()}
    return tensors, metadata, _end_of(tensors)


def _insist_on_few_parts(content: bytes) -> None:
    """What parsing takes depends on how many values there are, far more than on bytes."""
    rest, _ = _STRING.subn(b"", content, _MOST_STRINGS)
    brackets = rest.count(b"{") + rest.count(b"[")
    if b'"' in rest or brackets > _MOST_BRACKETS or len(rest) > _MOST_PUNCTUATION_BYTES:
        raise ValueError(f"its header has more parts than {_MOST_TENSORS} tensors, or is damaged")


def _metadata(entry: object) -> dict[str, str]:
    if entry is None:
        return {}
    if not isinstance(entry, dict):
        raise ValueError(f"{METADATA} is {shown(entry)}: expected texts by name")
    texts = cast("dict[str, object]", entry)
    for name, text in texts.items():
        if not isinstance(text, str):
            raise ValueError(f"{METADATA}: {shown(name)} is {shown(text)}: expected a text")
    return cast("dict[str, str]", entry)


def _tensor(name: str, entry: object) -> StoredTensor:
    fields = _fields(entry)
    if fields.keys() != _FIELDS:
        raise ValueError(f"tensor {shown(name)} is {shown(entry)}: expected dtype, shape, offsets")
    dtype = fields["dtype"]
    bits = _BITS.get(dtype) if isinstance(dtype, str) else None
    if bits is None:
        _refuse(name, "dtype", dtype)
    shape = _whole_numbers(fields["shape"])
    if shape is None:
        _refuse(name, "shape", fields["shape"])
    offsets = _whole_numbers(fields["data_offsets"])
    if offsets is None or len(offsets) != 2 or (offsets[1] - offsets[0]) * 8 != prod(shape) * bits:
        _refuse(name, "data_offsets", fields["data_offsets"])
    return StoredTensor(dtype, shape, *offsets)


def _fields(entry: object) -> dict[str, Any]:
    return cast("dict[str, Any]", entry) if isinstance(entry, dict) else {}


def _whole_numbers(value: object) -> tuple[int, ...] | None:
    """None for what is no list of whole numbers of at least 0."""
    if not isinstance(value, list):
        return None
    numbers = cast("list[object]", value)
    if len(numbers) > _MOST_DIMENSIONS:
        return None
    if any(type(each) is not int or not 0 <= each < _LARGEST for each in numbers):
        return None
    return tuple(cast("list[int]", numbers))


def _refuse(name: str, field: str, value: object) -> NoReturn:
    raise ValueError(f"tensor {shown(name)}: its {field} can't be {shown(value)}")


def _end_of(tensors: Mapping[str, StoredTensor]) -> int:
    """Where the last tensor ends. Raises ValueError where two overlap or there is a gap."""
    end = 0
    for name, tensor in sorted(tensors.items(), key=lambda each: (each[1].start, each[1].end)):
        if tensor.start != end:
            raise ValueError(f"tensor {shown(name)} does not begin where the one before ends")
        end = tensor.end
    return end
