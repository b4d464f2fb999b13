"""ComfyUI out of an archive of its commit: a made-up one, packed by git, served from loopback."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hordelib.setup import comfyui_files
from hordelib.setup.comfyui_files import (
    COMFYUI,
    NEWER,
    PinnedArchive,
    RuntimeSetupError,
    chosen_source,
    install_comfyui,
    installed_comfyui,
    is_current,
)
from hordelib.setup.packages import matched_to_torch
from tests.support.comfyui_archive import packed_by_git, serving

FILES = {
    "nodes.py": "NODES = {}\n",
    "comfy/sd.py": "x" * 200_000,
    "comfy.py": "between comfy and comfy/ in git's order\n",
    "tests/test_nodes.py": "assert False\n",
    "models/configs/v1.yaml": "a: 1\n",
    "run.sh": "#!/bin/sh\n",
    "ümlaut.py": "\n",
}
INSTALLED = {"nodes.py", "comfy/sd.py", "comfy.py", "run.sh", "ümlaut.py", "installed.json"}


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, str]:
    """What git packs of a commit, and the hash that it gives to the commit's tree."""
    return packed_by_git(tmp_path_factory.mktemp("repository"), FILES)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "a folder" / "ComfyUI"


def beside(target: Path) -> list[str]:
    return sorted(path.name for path in target.parent.iterdir())


def test_the_pinned_tree_is_installed_and_needs_no_network_again(
    packed: tuple[bytes, str], target: Path
):
    content, tree = packed
    with serving(content) as url:
        pinned = PinnedArchive(url, tree, "2.0")
        assert install_comfyui(target, pinned) == "2.0"
    found = [path.relative_to(target) for path in target.rglob("*") if path.is_file()]
    assert {str(path) for path in found if path.suffix != ".pyc"} == INSTALLED
    assert (target / "run.sh").stat().st_mode & 0o777 == 0o755
    assert {"custom_nodes", "input", "models", "output"} <= {p.name for p in target.iterdir()}
    assert installed_comfyui(target) == "2.0"
    assert beside(target) == ["ComfyUI"]
    assert install_comfyui(target, pinned) == "2.0"


def test_a_file_that_is_missing_is_brought_back(packed: tuple[bytes, str], target: Path):
    content, tree = packed
    with serving(content) as url:
        pinned = PinnedArchive(url, tree, "2.0")
        install_comfyui(target, pinned)
        (target / "comfy" / "sd.py").unlink()
        assert not is_current(target, pinned)
        install_comfyui(target, pinned)
        assert is_current(target, pinned)


def repacked(content: bytes, *, add: dict[str, bytes] | None = None, mode: int = 0) -> bytes:
    """The archive with more files, or with another mode of run.sh."""
    packed = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(content)) as old,
        tarfile.open(fileobj=packed, mode="w:gz") as new,
    ):
        for member in old:
            if mode and member.name.endswith("run.sh"):
                member.mode = mode
            new.addfile(member, old.extractfile(member) if member.isfile() else None)
        for name, data in (add or {}).items():
            row = tarfile.TarInfo(name)
            row.size = len(data)
            new.addfile(row, io.BytesIO(data))
    return packed.getvalue()


def linked(content: bytes) -> bytes:
    packed = io.BytesIO(content)
    with (
        tarfile.open(fileobj=packed) as old,
        tarfile.open(fileobj=(new := io.BytesIO()), mode="w:gz") as out,
    ):
        for member in old:
            out.addfile(member, old.extractfile(member) if member.isfile() else None)
        row = tarfile.TarInfo("ComfyUI-1/link")
        row.type, row.linkname = tarfile.SYMTYPE, "/etc/passwd"
        out.addfile(row)
    return new.getvalue()


BAD: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "another file": (lambda c: repacked(c, add={"ComfyUI-1/more.py": b"1"}), "git tree"),
    "a changed file": (lambda c: repacked(c, add={"ComfyUI-1/nodes.py": b"1"}), "git tree"),
    "a changed mode": (lambda c: repacked(c, mode=0o644), "git tree"),
    "a way out": (lambda c: repacked(c, add={"ComfyUI-1/../../out.py": b"1"}), "no plain file"),
    "a link": (linked, "no plain file"),
    "no archive": (lambda _: b"<html>", "damaged"),
    "half an archive": (lambda c: c[: len(c) // 2], "damaged"),
    "nothing": (lambda _: b"", "damaged"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_not_the_pinned_tree_is_not_installed(
    packed: tuple[bytes, str], target: Path, kind: str
):
    content, tree = packed
    spoil, told = BAD[kind]
    with serving(spoil(content)) as url, pytest.raises(RuntimeSetupError, match=told) as failure:
        install_comfyui(target, PinnedArchive(url, tree, "2.0"))
    assert "\n" not in str(failure.value)
    assert beside(target) == []
    assert not list(target.parents[1].rglob("out.py"))


def test_an_older_installation_stays_where_the_newer_one_does_not_come(
    packed: tuple[bytes, str], target: Path
):
    content, tree = packed
    with serving(content) as url:
        old = PinnedArchive(url, tree, "1.0")
        install_comfyui(target, old)
    with (
        serving(content, cut_bytes=10) as url,
        pytest.raises(RuntimeSetupError, match="could not be downloaded"),
    ):
        install_comfyui(target, replace(old, url=url, tree="0" * 40))
    assert is_current(target, old)
    assert beside(target) == ["ComfyUI"]


def test_an_archive_without_end_is_given_up(
    packed: tuple[bytes, str], target: Path, monkeypatch: pytest.MonkeyPatch
):
    content, tree = packed
    monkeypatch.setattr(comfyui_files, "_MOST_BYTES", 100_000)
    with serving(content) as url, pytest.raises(RuntimeSetupError, match="unpacks to more"):
        install_comfyui(target, PinnedArchive(url, tree, "2.0"))
    assert beside(target) == []


def test_the_version_that_was_asked_for_stays(packed: tuple[bytes, str], target: Path):
    content, tree = packed
    assert chosen_source(target, None) is COMFYUI
    with serving(content) as url:
        install_comfyui(target, PinnedArchive(url, tree, NEWER.version))
    assert chosen_source(target, None) is NEWER
    assert chosen_source(target, COMFYUI.version) is COMFYUI


@pytest.mark.parametrize(
    ("torch", "wanted"),
    [(None, ["a>=1", "torchaudio>=2.5"]), ("2.9.1+cpu", ["a>=1", "torchaudio>=2.5,<=2.9.1"])],
)
def test_no_torchaudio_brings_another_torch(tmp_path: Path, torch: str | None, wanted: list[str]):
    if torch:
        (tmp_path / f"torch-{torch}.dist-info").mkdir()
    assert [*matched_to_torch(["a>=1", "torchaudio>=2.5"], tmp_path)] == wanted
    assert os.listdir(tmp_path) == ([f"torch-{torch}.dist-info"] if torch else [])
