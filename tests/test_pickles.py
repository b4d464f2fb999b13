"""Pickled checkpoints, judged as torch's own `weights_only` judges them."""

from __future__ import annotations

import collections
import functools
import io
import pathlib
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from hordelib import Engine, GenerationParams
from hordelib.errors import ModelBroken
from hordelib.model_store import ModelStore, verify_checkpoint
from hordelib.pickles import _ALLOWED

SAFE: dict[str, object] = {
    "tensors": {"state_dict": {"a": torch.zeros(2), "b": torch.zeros(2, dtype=torch.bfloat16)}},
    "a parameter": {"a": torch.nn.Parameter(torch.zeros(2))},
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
    for content in (cut_off, b"hello", b"\x80\x02}q\x00.", b"", other_zip.getvalue()):
        path.write_bytes(content)
        for use in (
            verify_checkpoint,
            functools.partial(engine.generate, GenerationParams(prompt="a")),
        ):
            with pytest.raises(ModelBroken, match=r"model\.ckpt: a damaged pickle .*; fetch it"):
                use(path)


def test_a_file_of_an_old_torch_passes(tmp_path: Path):
    torch.save({"a": torch.zeros(2)}, tmp_path / "model.ckpt", _use_new_zipfile_serialization=False)
    verify_checkpoint(tmp_path / "model.ckpt")


def test_of_two_files_of_one_name_the_safetensors_file_serves(tmp_path: Path):
    for suffix in (".ckpt", ".safetensors"):
        (tmp_path / "compvis").mkdir(exist_ok=True)
        (tmp_path / "compvis" / f"deliberate{suffix}").touch()
    assert ModelStore(tmp_path).checkpoint("Deliberate").suffix == ".safetensors"
