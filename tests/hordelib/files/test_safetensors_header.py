"""The one reader of safetensors headers: real files pass, and nothing that a stranger writes costs
more than a moment.
"""

from __future__ import annotations

import json
import random
import tracemalloc
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from hordelib.errors import ModelBroken
from hordelib.files.safetensors_header import ADAPTER_BYTES, CHECKPOINT_BYTES, read_header
from tests.support.bounds import bounded, frugal
from tests.support.linear import MOST_GROWTH, growth

LIMIT_BYTES = 32 << 20
TENSOR = {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}


def packed(header: object, tensors: bytes = b"") -> bytes:
    return framed(json.dumps(header).encode(), tensors)


def framed(text: bytes, tensors: bytes = b"") -> bytes:
    return len(text).to_bytes(8, "little") + text + tensors


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("headers") / "model.safetensors"


def test_names_types_and_shapes_of_a_real_file_are_read(tmp_path: Path):
    path = tmp_path / "model.safetensors"
    tensors = {
        "a": torch.zeros(2, 3),
        "b": torch.zeros(0, dtype=torch.bfloat16),
        "": torch.ones(()),
    }
    save_file(tensors, path, {"about": "ä\U0001f600"})
    header = read_header(path)
    said = {name: tensor[:2] for name, tensor in header.tensors.items()}
    assert said == {"a": ("F32", (2, 3)), "b": ("BF16", (0,)), "": ("F32", ())}
    assert header.metadata == {"about": "ä\U0001f600"}


@pytest.mark.parametrize(
    "name", ["float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu", "bool", "int64", "complex64"]
)
def test_every_type_that_torch_saves_is_known(tmp_path: Path, name: str):
    save_file({"a": torch.zeros(3, dtype=getattr(torch, name))}, tmp_path / "a.safetensors")
    assert read_header(tmp_path / "a.safetensors").tensors["a"].shape == (3,)


DAMAGED = {
    "nothing": (b"", "not a safetensors file"),
    "a page": (b"<html>not found</html>", "not a safetensors file"),
    "noise": (b"\xff" * 64, "not a safetensors file"),
    "a list": (packed([1]), "no list of tensors"),
    "a number for a tensor": (packed({"t": 1}), "expected dtype, shape, offsets"),
    "no shape": (packed({"t": {"data_offsets": []}}), "expected dtype, shape, offsets"),
    "more than is known": (packed({"t": {**TENSOR, "x": 1}}), "expected dtype, shape, offsets"),
    "no type": (packed({"t": {**TENSOR, "dtype": ["F32"]}}), "its dtype can't be"),
    "another type": (packed({"t": {**TENSOR, "dtype": "F33"}}), "its dtype can't be 'F33'"),
    "a shape of shapes": (packed({"t": {**TENSOR, "shape": [[1]]}}), "its shape can't be"),
    "a negative shape": (packed({"t": {**TENSOR, "shape": [-4]}}), "its shape can't be"),
    "a fraction": (packed({"t": {**TENSOR, "shape": [4.0]}}), "its shape can't be"),
    "a truth": (packed({"t": {**TENSOR, "shape": [True, 4]}}), "its shape can't be"),
    "a text for a shape": (packed({"t": {**TENSOR, "shape": "4"}}), "its shape can't be '4'"),
    "a shape of digits": (packed({"t": {**TENSOR, "shape": [10**40]}}), "its shape can't be"),
    "one offset": (packed({"t": {**TENSOR, "data_offsets": [4]}}), "its data_offsets can't be"),
    "too little": (packed({"t": {**TENSOR, "shape": [5]}}, b"abcd"), "its data_offsets can't be"),
    "backwards": (packed({"t": {**TENSOR, "data_offsets": [8, 4]}}), "its data_offsets can't be"),
    "a gap": (packed({"t": {**TENSOR, "data_offsets": [4, 8]}}, bytes(8)), "does not begin where"),
    "an overlap": (packed({"t": TENSOR, "u": TENSOR}, b"abcd"), "'u' does not begin where"),
    "cut off": (packed({"t": TENSOR}, b"abc"), "it is cut off or damaged"),
    "too much": (packed({"t": TENSOR}, b"abcdefgh"), "it is cut off or damaged"),
    "cut off in its header": (packed({"t": TENSOR})[:40], "it is cut off or damaged"),
    "metadata of numbers": (packed({"__metadata__": {"a": 1}}), "expected a text"),
    "a list for metadata": (packed({"__metadata__": [1]}), "expected texts by name"),
    "no JSON": (framed(b"{" * 40), "not a safetensors file"),
    "no unicode": (framed(b'{"\xff": 1}'), "not a safetensors file"),
    "half a surrogate": (framed(b'{"\\ud800": 1}'), r"tensor '\ud800' is 1"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_named_with_reason_and_remedy(file: Path, name: str):
    content, reason = DAMAGED[name]
    file.write_bytes(content)
    with pytest.raises(ModelBroken) as caught:
        read_header(file)
    told = str(caught.value)
    assert str(file) in told
    assert reason in told
    assert told.endswith("fetch it again")
    assert told.isprintable()
    assert len(told) < len(str(file)) + 300


MIB = 1 << 20
HOSTILE = {
    "nested 3,000 deep": b"[" * 3000 + b"]" * 3000,
    "a tensor nested 3,000 deep": b'{"a":' + b"[" * 3000 + b"]" * 3000 + b"}",
    "nested as deep as it may be long": b"[" * 2 * MIB + b"]" * 2 * MIB,
    "lists": b'{"a":[' + b"[]," * MIB + b"[]]}",
    "as many lists as are read": b'{"a":[' + b"[]," * 39_000 + b"[]]}",
    "dicts": b'{"a":[' + b"{}," * MIB + b"{}]}",
    "numbers": b'{"a":[' + b"1," * (2 * MIB - 8) + b"1]}",
    "as many numbers as are read": b'{"a":[' + b"1e9," * 190_000 + b"1]}",
    "texts": b'{"a":[' + b'"",' * MIB + b'""]}',
    "names": b"{" + b",".join(b'"%x":0' % i for i in range(380_000)) + b"}",
    "as many names as are read": b"{" + b",".join(b'"%x":0' % i for i in range(59_000)) + b"}",
    "a text": b'{"a":"' + b"\\n" * (4 * MIB - 8) + b'"}',
    "a text without an end": b'{"a":"' + b"\\n" * (2 * MIB - 8) + b"}",
    "digits": b'{"a":' + b"9" * (4 * MIB - 8) + b"}",
    "numbers of many digits": b'{"a":[' + b",".join([b"9" * 4300] * 180) + b"]}",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_no_header_of_a_stranger_takes_long_or_much(file: Path, name: str):
    file.write_bytes(framed(HOSTILE[name]))
    with bounded(seconds=0.5):
        refused(file)
    tracemalloc.start()
    try:
        refused(file)
        assert tracemalloc.get_traced_memory()[1] < LIMIT_BYTES
    finally:
        tracemalloc.stop()


def test_a_header_of_96_mb_is_refused_by_its_length(file: Path):
    with file.open("wb") as opened:
        opened.write((96 * MIB).to_bytes(8, "little") + b"{")
        opened.truncate(97 * MIB)
    for most_bytes in (ADAPTER_BYTES, CHECKPOINT_BYTES):
        with pytest.raises(ModelBroken, match=rf"a header of {96 * MIB} bytes.*too much text"):
            read_header(file, most_bytes)


def test_the_largest_headers_that_pass_are_read_in_a_moment(file: Path):
    tensors = {
        f"lora_unet_{i}": {"dtype": "F32", "shape": [1], "data_offsets": [4 * i, 4 * i + 4]}
        for i in range(10_000)
    }
    tags = json.dumps({f"tag {i}": i for i in range(300_000)})
    file.write_bytes(packed({**tensors, "__metadata__": {"ss_tag_frequency": tags}}, bytes(40_000)))
    with bounded(seconds=0.5):
        read_header(file, ADAPTER_BYTES)


def refused(file: Path) -> None:
    with pytest.raises(ModelBroken, match="fetch it again"):
        read_header(file, ADAPTER_BYTES)


# ---- fuzz --------------------------------------------------------------------------------------

ODD = st.sampled_from(
    (None, True, -1, 1.5, 10**30, "x", "", [], [0], [[1]], ["a"], {}, {"a": 1}, {"dtype": "F32"})
)
ENTRY = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(("F32", "U8", "F4", "BF16")) | ODD,
        "shape": st.lists(st.integers(0, 5), max_size=3) | ODD,
        "data_offsets": st.lists(st.integers(0, 40), min_size=2, max_size=2) | ODD,
    }
)
NAMES = st.sampled_from(("a", "b", "", "__metadata__", "\ud800", "\n"))
HEADER = st.dictionaries(NAMES, ENTRY | ODD, max_size=3)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(HEADER, st.binary(max_size=40))
def test_any_header_is_read_or_refused(file: Path, header: object, tensors: bytes):
    file.write_bytes(packed(header, tensors))
    read_or_refuse(file)


@pytest.mark.parametrize("seed", range(2))
def test_any_damaged_byte_is_read_or_refused(file: Path, tmp_path: Path, seed: int):
    dice = random.Random(seed)
    save_file({"a": torch.zeros(2, 3), "b": torch.ones(4)}, tmp_path / "a", {"about": "x"})
    whole = (tmp_path / "a").read_bytes()
    for _ in range(150):
        content = bytearray(whole)
        for _ in range(dice.randint(1, 3)):
            content[dice.randrange(len(content))] = dice.randrange(256)
        file.write_bytes(content[: dice.choice([len(content), dice.randrange(len(content))])])
        read_or_refuse(file)


@frugal
def read_or_refuse(file: Path) -> None:
    try:
        header = read_header(file)
    except ModelBroken as error:
        told = str(error)
    else:
        told = str(file)
        assert all(type(size) is int for each in header.tensors.values() for size in each.shape)
    assert str(file) in told
    assert told.isprintable()


def test_a_text_that_never_ends_is_read_in_a_time_that_grows_with_its_length(file: Path):
    def read(size: int) -> None:
        file.write_bytes(framed(b'{"' + b'\\"' * size))
        with pytest.raises(ModelBroken, match="Unterminated"):
            read_header(file)

    assert growth(read, 10_000) <= MOST_GROWTH
