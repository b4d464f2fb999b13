from __future__ import annotations

import json
from pathlib import Path

import pytest

from hordelib.errors import ModelBroken, ModelMissing
from hordelib.model_store import ModelStore, verify_checkpoint


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    (tmp_path / "compvis").mkdir()
    for name in ("dreamer_demo.safetensors", "Deliberate v2.ckpt", "notes.txt"):
        (tmp_path / "compvis" / name).touch()
    return ModelStore(tmp_path, {"Mine": tmp_path / "elsewhere.safetensors"})


@pytest.mark.parametrize("name", ["Dreamer Demo", "dreamer_demo", "DreamerDemo"])
def test_a_name_finds_the_file_that_is_called_like_it(store: ModelStore, name: str):
    assert store.checkpoint(name).name == "dreamer_demo.safetensors"


def test_a_custom_model_is_its_own_file(store: ModelStore, tmp_path: Path):
    with pytest.raises(ModelMissing, match=r"'Mine'.*elsewhere"):
        store.checkpoint("Mine")
    (tmp_path / "elsewhere.safetensors").touch()
    assert store.checkpoint("Mine") == tmp_path / "elsewhere.safetensors"


@pytest.mark.parametrize("name", ["notes", "Deliberate", "../secret", ""])
def test_an_unknown_name_says_where_it_was_looked_for(store: ModelStore, name: str):
    with pytest.raises(ModelMissing, match="compvis"):
        store.checkpoint(name)


def test_the_demo_checkpoint_is_whole(checkpoint: Path):
    verify_checkpoint(checkpoint)


def _safetensors(header: object, tensors: bytes) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + tensors


TENSOR = {"t": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "not a safetensors file"),
        (b"<html>not found</html>", "not a safetensors file"),
        (b"\xff" * 64, "not a safetensors file"),
        (_safetensors([1], b""), "not a safetensors file"),
        (_safetensors({"t": {"data_offsets": []}}, b""), "not a safetensors file"),
        (_safetensors(TENSOR, b"abc"), "cut off"),
        (_safetensors(TENSOR, b"abcdefgh"), "damaged"),
    ],
)
def test_damaged_files_are_named_with_the_remedy(tmp_path: Path, content: bytes, complaint: str):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelBroken, match=complaint) as caught:
        verify_checkpoint(path)
    assert "fetch it again" in str(caught.value)


def test_a_whole_file_passes(tmp_path: Path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(_safetensors(TENSOR, b"abcd"))
    verify_checkpoint(path)


def test_models_are_found_by_the_file_names_of_the_model_reference(tmp_path: Path):
    file = tmp_path / "compvis" / "stable_cascade_stage_c.safetensors"
    file.parent.mkdir()
    file.touch()
    assert ModelStore(tmp_path).checkpoint("Stable Cascade 1.0") == file


@pytest.mark.parametrize("name", ["../secret", "..", "/etc/passwd", "a/../../secret", "secret\0"])
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str):
    (tmp_path / "models" / "compvis").mkdir(parents=True)
    (tmp_path / "models" / "secret.safetensors").touch()
    (tmp_path / "secret.safetensors").touch()
    with pytest.raises(ModelMissing):
        ModelStore(tmp_path / "models").checkpoint(name)
