"""Pickled checkpoints, judged as torch's own `weights_only` judges them."""

from __future__ import annotations

import collections
import functools
import io
import pathlib
import pickletools
import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from hordelib import Engine, GenerationParams
from hordelib.errors import ModelBroken
from hordelib.files.headers import detect, read_shapes, verify_checkpoint
from hordelib.files.names import ModelStore
from hordelib.files.pickle_walk import _ALLOWED
from tests.support.bounds import frugal

SAFE: dict[str, object] = {
    "tensors": {"state_dict": {"a": torch.zeros(2), "b": torch.zeros(2, dtype=torch.bfloat16)}},
    "a parameter": {"a": torch.nn.Parameter(torch.zeros(2))},
    "what is shared": {"a": (shared := torch.ones(2, 3)), "b": shared, "c": shared.T},
    "nothing": {},
    "plain values": {"epoch": 3, "lr": 0.1, "names": ["a"], "order": collections.OrderedDict(a=1)},
    "kinds of numbers": {"dtype": torch.float16, "size": torch.Size([1, 2])},
}
UNSAFE: dict[str, object] = {
    "a path": {"a": pathlib.PurePosixPath("x")},
    "a function": {"a": functools.partial(print, "x")},
    "an array": {"a": np.zeros(3)},
}


@pytest.mark.parametrize("name", SAFE)
def test_what_torch_loads_safely_passes(tmp_path: Path, name: str):
    torch.save(SAFE[name], tmp_path / "model.ckpt")
    torch.load(tmp_path / "model.ckpt", weights_only=True)
    verify_checkpoint(tmp_path / "model.ckpt")


@pytest.mark.parametrize("name", UNSAFE)
def test_what_torch_refuses_is_refused_by_name_with_a_remedy(tmp_path: Path, name: str):
    torch.save(UNSAFE[name], tmp_path / "model.ckpt")
    with pytest.raises(Exception, match="weights_only"):
        torch.load(tmp_path / "model.ckpt", weights_only=True)
    with pytest.raises(ModelBroken, match=r"model\.ckpt: a pickle that could run code.*safetens"):
        verify_checkpoint(tmp_path / "model.ckpt")


def test_nothing_is_allowed_that_torch_does_not_allow():
    from torch._weights_only_unpickler import _get_allowed_globals

    ours = {name for name in _get_allowed_globals() if _ALLOWED.fullmatch(name)}
    assert {
        "collections.OrderedDict",
        "torch.FloatStorage",
        "torch._utils._rebuild_tensor_v2",
    } <= ours
    for name in ("os.system", "builtins.eval", "torch.load", "torch.hub.load", "subprocess.Popen"):
        assert not _ALLOWED.fullmatch(name)


def test_a_damaged_pickle_is_named(tmp_path: Path):
    torch.save({"a": torch.zeros(64)}, tmp_path / "model.ckpt")
    content = (tmp_path / "model.ckpt").read_bytes()
    (tmp_path / "model.ckpt").write_bytes(content.replace(b"ctorch._utils", b"\xffxxxxxxxxxxx", 1))
    with pytest.raises(ModelBroken, match=r"model\.ckpt: a damaged pickle"):
        verify_checkpoint(tmp_path / "model.ckpt")


def test_what_is_cut_off_or_no_pickle_at_all_is_named(engine: Engine, tmp_path: Path):
    path = tmp_path / "model.ckpt"
    torch.save({"a": torch.zeros(64)}, path)
    other_zip = io.BytesIO()
    with zipfile.ZipFile(other_zip, "w") as archive:
        archive.writestr("readme.txt", "hello")
    cut_off = path.read_bytes()[:-100]
    told = {
        cut_off: r"a damaged pickle .*; fetch it",
        other_zip.getvalue(): r"a damaged pickle .*; fetch it",
        b"hello": r"no model file: it begins with b'hello'; fetch it",
        b"\x80\x02}q\x00.": r"no model file: it begins with .*; fetch it",
        b"": r"an empty file; fetch it",
    }
    for content, reason in told.items():
        path.write_bytes(content)
        for use in (
            verify_checkpoint,
            functools.partial(engine.generate, GenerationParams(prompt="a")),
        ):
            with pytest.raises(ModelBroken, match=rf"model\.ckpt: {reason}"):
                use(path)


def test_a_file_of_an_old_torch_passes(tmp_path: Path):
    torch.save({"a": torch.zeros(2)}, tmp_path / "model.ckpt", _use_new_zipfile_serialization=False)
    verify_checkpoint(tmp_path / "model.ckpt")


@pytest.mark.parametrize("is_new", [True, False], ids=["new", "old"])
@pytest.mark.parametrize("wrapped", ["", "state_dict", "params"])
def test_shapes_are_told_without_unpickling(tmp_path: Path, wrapped: str, is_new: bool):
    tensors = {
        "plain": torch.zeros(2, 3),
        "parameter": torch.nn.Parameter(torch.zeros(4)),
        "half": torch.zeros((), dtype=torch.float16),
        "empty": torch.zeros(0, 5),
        "view": torch.zeros(6, 6)[1:3].T,
    }
    saved: object = collections.OrderedDict(tensors)
    if wrapped:
        saved = {wrapped: saved} | ({"epoch": 3} if wrapped == "state_dict" else {})
    path = tmp_path / "model.ckpt"
    torch.save(saved, path, _use_new_zipfile_serialization=is_new)
    assert read_shapes(path) == {name: tuple(each.shape) for name, each in tensors.items()}


# ---- a stranger's pickles ----------------------------------------------------------------------

MANY = 5_000_000
TUPLE1, DUP, MARK, EMPTY_TUPLE, STOP = b"\x85", b"2", b"(", b")", b"."
ONE = b"K\x01"
HOSTILE = {
    "five million nested tuples as a key": b"}" + EMPTY_TUPLE + TUPLE1 * MANY + ONE + b"s.",
    "nested tuples as a key": b"}" + EMPTY_TUPLE + TUPLE1 * 400_000 + ONE + b"s.",
    "tuples that double": b"}" + EMPTY_TUPLE + (DUP + b"\x86") * 240_000 + ONE + b"s.",
    "a huge index of the memo": b"}r" + (2**32 - 1).to_bytes(4, "little") + b".",
    "a huge index of the memo, as text": b"}p" + b"9" * 4000 + b"\n.",
    "an index of the memo of a million digits": b"}p" + b"9" * (1 << 20) + b"\n.",
    "20 MB of DUP": b"}" + DUP * (20 << 20) + b".",
    "20 MB of MARK": MARK * (20 << 20) + b"t.",
    "as many as are walked": b"}" + DUP * 499_990 + b".",
    "nothing but marks to be found": ONE + MARK * 400_000 + (b"1" * 400_000) + b"t.",
    "dicts in dicts": b"}" + (b"X\x01\0\0\0a}" * 200_000) + b"s" * 200_000 + b".",
    "a tensor of a long shape, again and again": (
        b"ctorch._utils\n_rebuild_tensor_v2\nq\0("
        + ONE * 300_000
        + b"tq\1"
        + b"h\0h\1R" * 100_000
        + b"."
    ),
    "numbers without an end": b"\x8b"
    + (7 << 20).to_bytes(4, "little")
    + b"\x7f" * (7 << 20)
    + b".",
    "a number without an end, as text": b"L" + b"9" * (7 << 20) + b"L\n.",
    "a text that is not there": b"X\xff\xff\xff\x7fabc.",
    "names without an end": b"".join(b"ca%d\nb\n" % i for i in range(200_000)) + b".",
}


def write_zip(path: Path, pickled: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + pickled)
    return path


def write_old(path: Path, pickled: bytes) -> Path:
    """Of torch before 1.6; its first pickles are those of any file."""
    torch.save({}, path, _use_new_zipfile_serialization=False)
    preface, begin, _ = path.read_bytes().rpartition(b"\x80\x02}q\x00.\x80\x02")
    assert begin
    path.write_bytes(preface + b"\x80\x02" + pickled)
    return path


@pytest.mark.parametrize("name", HOSTILE)
def test_no_pickle_of_a_stranger_takes_long_or_much(tmp_path: Path, name: str):
    write = write_old if name.startswith("nested") else write_zip
    path = write(tmp_path / "model.ckpt", HOSTILE[name])
    told = told_of(path)
    assert len(told) < len(str(path)) + 300


@frugal
def told_of(path: Path) -> str:
    """One printable line that names the file, if it is refused."""
    for read in (verify_checkpoint, detect):
        try:
            read(path)
        except ModelBroken as error:
            told = str(error)
            assert path.name in told
            assert told.isprintable()
            return told
    return ""


def test_a_zip_of_a_million_files_is_refused_before_its_list_is_read(tmp_path: Path):
    path = write_zip(tmp_path / "model.ckpt", b"}.")
    whole = path.read_bytes()
    begin, end = whole.index(b"PK\1\2"), whole.index(b"PK\5\6")
    entry = whole[begin:end]
    many = 20_000_000 // len(entry)
    closing = bytearray(whole[end:])
    closing[12:20] = (many * len(entry)).to_bytes(4, "little") + begin.to_bytes(4, "little")
    path.write_bytes(whole[:begin] + entry * many + closing)
    assert "its list of files is longer than that of any checkpoint" in told_of(path)


@pytest.mark.parametrize("is_new", [True, False], ids=["new", "old"])
def test_any_damaged_byte_is_read_or_refused(tmp_path: Path, is_new: bool):
    dice = random.Random(3)
    path = tmp_path / "model.ckpt"
    saved = {"state_dict": {"a": torch.zeros(2, 3), "b": torch.nn.Parameter(torch.zeros(1))}}
    torch.save(saved, path, _use_new_zipfile_serialization=is_new)
    whole = path.read_bytes()
    for _ in range(100):
        content = bytearray(whole)
        for _ in range(dice.randint(1, 4)):
            content[dice.randrange(len(content))] = dice.randrange(256)
        path.write_bytes(content[: dice.choice([len(content), dice.randrange(len(content))])])
        told_of(path)


OPCODES = [opcode.code.encode("latin-1") for opcode in pickletools.opcodes]


@pytest.mark.parametrize("write", [write_zip, write_old])
def test_any_row_of_opcodes_is_read_or_refused(
    tmp_path: Path, write: Callable[[Path, bytes], Path]
):
    dice = random.Random(5)
    for _ in range(100):
        parts = (
            dice.choice(OPCODES) + dice.randbytes(dice.choice([0, 0, 1, 2, 4])) for _ in range(12)
        )
        told_of(write(tmp_path / "model.ckpt", b"(}(K\x01" + b"".join(parts) + b"."))


def test_of_two_files_of_one_name_the_safetensors_file_serves(tmp_path: Path):
    for suffix in (".ckpt", ".safetensors"):
        (tmp_path / "compvis").mkdir(exist_ok=True)
        (tmp_path / "compvis" / f"deliberate{suffix}").touch()
    assert ModelStore(tmp_path).checkpoint("Deliberate").suffix == ".safetensors"
