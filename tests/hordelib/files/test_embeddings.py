"""Textual inversions on disk: which fit a model, and which references to them are kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from hordelib.files.embeddings import (
    MOST_MENTIONS,
    MOST_TOKENS,
    MOST_VECTORS,
    Widths,
    find,
    fits,
    look_at,
    read_shapes,
    without_references,
)
from hordelib.files.embeddings import resolve as resolve_with
from hordelib.job.notes import GenMetadata, MetadataType, MetadataValue
from tests.support.linear import MOST_GROWTH, growth


def resolve(
    text: str, folder: Path | None, encoders: Widths
) -> tuple[str, tuple[GenMetadata, ...]]:
    """By the files' headers."""
    return resolve_with(text, lambda name: look_at(name, folder, encoders).vectors)


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
    shapes = read_shapes(folder / f"{file}.safetensors")
    assert fits({name: shape[-1] for name, shape in shapes.items()}, encoders) is is_fit


@pytest.mark.parametrize("file", ["cut", "empty", "page", "list", "conv"])
def test_a_file_that_is_no_textual_inversion_is_said_so(folder: Path, file: str):
    with pytest.raises(ValueError, match=rf"{file}\.safetensors"):
        read_shapes(folder / f"{file}.safetensors")


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


@settings(derandomize=True)
@given(st.text(alphabet="./\\ab\0~:", max_size=12))
def test_no_name_leads_out_of_the_folder(folder: Path, name: str):
    found = find(f"{name}outside", folder) or find(name, folder)
    assert found is None or found.parent == folder


def told(notes: tuple[GenMetadata, ...]) -> list[str]:
    assert {note.type for note in notes} <= {MetadataType.INFORMATION}
    return [note.ref or "" for note in notes]


def test_each_name_is_looked_at_once_however_often_it_is_mentioned():
    looked: list[str] = []

    def count(name: str) -> int:
        looked.append(name)
        return 1

    text, notes = resolve_with("a embedding:big, embedding:small " * 700, count)
    assert text.count("embedding:") == MOST_MENTIONS
    assert looked == ["big", "small"]
    assert told(notes) == ["textual inversions after the first 50 in a prompt left out"]


def test_no_prompt_has_more_vectors_than_tokens_that_are_encoded():
    text, notes = resolve_with("embedding:big " * 40, lambda _: 13_643)
    assert text.count("embedding:") * MOST_VECTORS <= MOST_TOKENS
    assert told(notes) == [
        f"textual inversion big has 13643 vectors: {MOST_VECTORS} were used",
        "textual inversions beyond 2400 vectors in a prompt left out",
    ]


def test_what_is_left_out_does_not_make_a_reference_of_what_stands_around_it(folder: Path):
    text, _ = resolve("a emb(embedding:nothing)edding:sd1", folder, SD1)
    assert "embedding:" not in text


def test_a_prompt_can_be_had_without_its_textual_inversions():
    text, notes = without_references("a (embedding:7:0.5), embedding:8 cat", {"8"})
    assert text.split() == ["a", "(", "embedding:7", ":0.5),", "cat"]
    assert notes == (note(MetadataValue.PARSE_FAILED, "8"),)
    assert "embedding" not in without_references("a embedding:8 (embedding:9)")[0]


def test_a_name_that_no_file_can_have_is_left_out(folder: Path):
    assert find("x" * 300, folder) is None
    assert find("\U0001f468" * 100, folder) is None


@pytest.mark.parametrize(
    "piece", ["embedding:sd1 ", "embedding:", "embedding:a", "( ", "(embedding:"]
)
def test_references_are_found_in_a_time_that_grows_with_the_prompts_length(piece: str):
    assert growth(lambda size: resolve_with(piece * size, lambda _: 1), 4_000) <= MOST_GROWTH
