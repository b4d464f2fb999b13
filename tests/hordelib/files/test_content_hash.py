"""The hash of a file's tensors: the horde's own value, and what changes it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from hordelib.errors import ModelBroken
from hordelib.files.content_hash import content_hash

# That of the horde's own program (horde_model_reference 8.6, component_hash) for TENSORS.
HORDES = "49a79a6b637e141733f018dbb03fa0e45a96e453b3c88e53317a7f7f4a7531be"
Tensors = Mapping[str, tuple[str, list[int], bytes]]
TENSORS: Tensors = {
    "encoder.weight": ("F16", [2, 3], bytes(range(12))),
    "encoder.bias": ("F32", [1], b"\x00\x01\x02\x03"),
    "größe": ("U8", [], b"\x2a"),
    "nothing": ("I64", [0], b""),
}


def write(path: Path, tensors: Tensors, metadata: Mapping[str, str] | None = None) -> Path:
    """A safetensors file whose tensors lie in this order."""
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    data = b""
    for name, (dtype, shape, content) in tensors.items():
        offsets = [len(data), len(data) + len(content)]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        data += content
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def test_it_is_the_hordes(tmp_path: Path):
    assert content_hash(write(tmp_path / "a.safetensors", TENSORS)) == HORDES


def test_neither_the_order_nor_the_words_beside_the_tensors_count(tmp_path: Path):
    turned = dict(sorted(TENSORS.items(), reverse=True))
    assert content_hash(write(tmp_path / "a.safetensors", turned, {"by": "somebody"})) == HORDES


CHANGES: Mapping[str, Tensors] = {
    "shape": {"nothing": ("I64", [0, 1], b"")},
    "type": {"encoder.bias": ("I32", [1], b"\x00\x01\x02\x03")},
    "byte": {"encoder.bias": ("F32", [1], b"\x00\x01\x02\x04")},
    "one more": {"more": ("U8", [1], b"\x00")},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_every_tensor_counts(tmp_path: Path, change: Tensors):
    assert content_hash(write(tmp_path / "a.safetensors", {**TENSORS, **change})) != HORDES


def test_a_tensor_that_is_not_there_counts(tmp_path: Path):
    rest = {name: each for name, each in TENSORS.items() if name != "nothing"}
    assert content_hash(write(tmp_path / "a.safetensors", rest)) != HORDES


@pytest.mark.parametrize("content", [b"", b"weights", b"\xff" * 64])
def test_what_is_no_safetensors_file_has_none(tmp_path: Path, content: bytes):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelBroken, match=r"a\.safetensors"):
        content_hash(path)
