"""Strangers' files, given straight to the engine: refused, and nothing outside of them is read."""

from __future__ import annotations

import json
import os
import pickle
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hordelib import Engine
from hordelib.comfyui.loaders.image_networks import load_subject_finder
from hordelib.errors import ModelBroken
from hordelib.files.model_key import ModelKey
from hordelib.job.notes import MetadataType
from hordelib.job.params import Lora
from tests.hordelib.test_engine import SMALL
from tests.support.tiny_networks import write_with_data_elsewhere

ONCE = replace(SMALL, steps=1)
Write = Callable[[Path], object]


class Code:
    """Runs when a pickle of it is read without care: it leaves a folder behind."""

    def __init__(self, mark: Path):
        self._mark = mark

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self._mark),)


def _pickle(path: Path) -> None:
    torch.save({"emb_params": torch.ones(2, 768), "x": Code(path.with_name("ran"))}, path)


def _old_pickle(path: Path) -> None:
    """As torch wrote them before 1.6: no zip, several pickles after each other."""
    content = {"emb_params": torch.ones(2, 768), "x": Code(path.with_name("ran"))}
    torch.save(content, path, _use_new_zipfile_serialization=False)


def _plain_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(Code(path.with_name("ran")), 0))


def _ranges(*offsets: tuple[int, int], bytes_of_tensors: int = 3072) -> Write:
    """A safetensors file of vectors at these places, whatever they are."""
    header = json.dumps(
        {
            f"t{number}": {"dtype": "F32", "shape": [1, 768], "data_offsets": place}
            for number, place in enumerate(offsets)
        }
    ).encode()
    whole = struct.pack("<Q", len(header)) + header + bytes(bytes_of_tensors)
    return lambda path: path.write_bytes(whole)


HOSTILE: dict[str, Write] = {
    "pickle": _pickle,
    "old": _old_pickle,
    "plain": _plain_pickle,
    "overlapping": _ranges((0, 3072), (1536, 4608), bytes_of_tensors=4608),
    "twice": _ranges((0, 3072), (0, 3072)),
    "beyond": _ranges((3072, 6144)),
    "far": _ranges((1 << 40, (1 << 40) + 3072)),
    "less": _ranges((0, 4), bytes_of_tensors=4),
    "before": _ranges((-3072, 0)),
    "longer": _ranges((0, 3072), bytes_of_tensors=8),
}


def write_all(folder: Path) -> list[Path]:
    """Each sample under each of the usual endings."""
    endings = (".safetensors", ".ckpt", ".pt", ".bin")
    paths = [folder / f"{name}{ending}" for name in HOSTILE for ending in endings]
    for path in paths:
        HOSTILE[path.stem](path)
    return paths


def test_a_hostile_checkpoint_is_refused_by_name(engine: Engine, tmp_path: Path):
    for path in write_all(tmp_path):
        with pytest.raises(ModelBroken, match=path.name):
            engine.generate(ONCE, path)
    assert not (tmp_path / "ran").exists()


def test_hostile_loras_and_inversions_cost_only_themselves(
    engine: Engine, checkpoint: Path, tmp_path: Path
):
    """Inversions are looked for under one ending, whatever else lies there."""
    paths = write_all(tmp_path)
    params = replace(
        ONCE,
        prompt=f"{ONCE.prompt} {' '.join(f'(embedding:{path.name}:1)' for path in paths)}",
        embeddings_folder=tmp_path,
        loras=tuple(Lora(path.name, path) for path in paths),
    )
    notes = engine.generate(params, checkpoint).notes
    assert {note.type for note in notes} == {MetadataType.TI, MetadataType.LORA}
    failed = {note.ref for note in notes if note.type is MetadataType.LORA}
    assert failed == {path.name for path in paths}
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("as_attribute", [False, True], ids=["initializer", "attribute"])
@pytest.mark.parametrize("location", ["../secret", "link", "/", "/dev/zero", "/proc/self/environ"])
def test_a_background_remover_with_data_outside_of_its_folder_is_refused(
    tmp_path: Path, location: str, as_attribute: bool
):
    (secret := tmp_path / "secret").write_bytes(struct.pack("<f", 0.5))
    folder = tmp_path / "rembg"
    folder.mkdir()
    (folder / "link").symlink_to(secret)
    where = str(secret) if location == "/" else location
    path = write_with_data_elsewhere(folder / "u2net.onnx", where, as_attribute=as_attribute)
    with pytest.raises(ModelBroken, match=r"u2net\.onnx can't be loaded"):
        load_subject_finder(ModelKey("background", path))


def test_data_beside_a_background_remover_are_its_own(tmp_path: Path):
    """What the refusals are measured with is a file that can be read."""
    (tmp_path / "data").write_bytes(struct.pack("<f", 0.5))
    path = write_with_data_elsewhere(tmp_path / "u2net.onnx", "data")
    assert load_subject_finder(ModelKey("background", path)).name == path.name
