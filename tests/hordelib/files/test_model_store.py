from __future__ import annotations

from pathlib import Path

import pytest

from hordelib.errors import ModelMissing
from hordelib.files.names import ModelStore


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
