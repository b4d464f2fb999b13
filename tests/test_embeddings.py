"""Textual inversions on disk: which fit a model, and which references to them are kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from hordelib.embeddings import find, fits, read_widths, resolve
from hordelib.gen_metadata import GenMetadata, MetadataType, MetadataValue

SD1 = {"clip_l": 768}
SD2 = {"clip_h": 1024}
SDXL = {"clip_l": 768, "clip_g": 1280}
FILES = {
    "sd1": {"emb_params": (2, 768)},
    "sd1_named": {"clip_l": (768,)},
    "sd2": {"emb_params": (4, 1024)},
    "sdxl": {"clip_l": (2, 768), "clip_g": (2, 1280)},
    "conv": {"weight": (8, 4, 3, 3)},
}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One textual inversion of each kind, and files that are none."""
    folder = tmp_path_factory.mktemp("models") / "ti"
    folder.mkdir()
    for name, shapes in FILES.items():
        path = folder / f"{name}.safetensors"
        save_file({key: torch.zeros(shape) for key, shape in shapes.items()}, path)
    whole = (folder / "sd1.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(whole[:-100])
    (folder / "empty.safetensors").write_bytes(b"")
    (folder / "page.safetensors").write_bytes(b"<html>" * 50)
    (folder / "list.safetensors").write_bytes((2).to_bytes(8, "little") + b"[]")
    (folder.parent / "outside.safetensors").write_bytes(whole)
    return folder


@pytest.mark.parametrize(
    ("file", "encoders", "is_fit"),
    [
        ("sd1", SD1, True),
        ("sd1_named", SD1, True),
        ("sd2", SD1, False),
        ("sdxl", SD1, False),
        ("sd2", SD2, True),
        ("sd1", SD2, False),
        ("sdxl", SDXL, True),
        ("sd1", SDXL, False),
        ("sd1_named", SDXL, False),
    ],
)
def test_a_textual_inversion_fits_models_of_its_widths_only(
    folder: Path, file: str, encoders: dict[str, int], is_fit: bool
):
    assert fits(read_widths(folder / f"{file}.safetensors"), encoders) is is_fit


@pytest.mark.parametrize("file", ["cut", "empty", "page", "list", "conv"])
def test_a_file_that_is_no_textual_inversion_is_said_so(folder: Path, file: str):
    with pytest.raises(ValueError, match=rf"{file}\.safetensors"):
        read_widths(folder / f"{file}.safetensors")


def note(value: MetadataValue, name: str) -> GenMetadata:
    return GenMetadata(MetadataType.TI, value, name)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("a cat, embedding:sd1 on a mat", "a cat,  embedding:sd1  on a mat"),
        ("(embedding:sd1:0.5),cat", "( embedding:sd1 :0.5),cat"),
        ("cat,embedding:sd1.safetensors, dog", "cat, embedding:sd1 , dog"),
        ("the end: embedding:sd1.", "the end:  embedding:sd1 ."),
        ("no embedding here", "no embedding here"),
    ],
)
def test_a_reference_that_can_be_used_is_kept(folder: Path, text: str, kept: str):
    assert resolve(text, folder, SD1) == (kept, ())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sd2", MetadataValue.BASELINE_MISMATCH),
        ("sdxl", MetadataValue.BASELINE_MISMATCH),
        ("cut", MetadataValue.PARSE_FAILED),
        ("nothing", MetadataValue.DOWNLOAD_FAILED),
        ("../outside", MetadataValue.DOWNLOAD_FAILED),
        ("/etc/passwd", MetadataValue.DOWNLOAD_FAILED),
    ],
)
def test_a_reference_that_cannot_be_used_is_left_out_and_disclosed_once(
    folder: Path, name: str, value: MetadataValue
):
    text, notes = resolve(f"cat, (embedding:{name}:-1.1) embedding:{name}", folder, SD1)
    assert text.split() == ["cat,"]
    assert notes == (note(value, name),)


def test_words_beside_a_reference_that_is_left_out_stay(folder: Path):
    text, notes = resolve("(embedding:nothing cat:1.2), (dog embedding:, bird)", folder, SD1)
    assert text == "( cat:1.2), (dog , bird)"
    assert [note.ref for note in notes] == ["nothing", "embedding:"]


def test_without_a_folder_no_reference_can_be_used():
    assert resolve("embedding:sd1", None, SD1) == (
        "",
        (note(MetadataValue.DOWNLOAD_FAILED, "sd1"),),
    )


@given(st.text(alphabet="./\\ab\0~:", max_size=12))
def test_no_name_leads_out_of_the_folder(folder: Path, name: str):
    found = find(f"{name}outside", folder) or find(name, folder)
    assert found is None or found.parent == folder
