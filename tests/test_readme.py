"""What README and docs/library.md promise a reader: the examples run, and links lead somewhere."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageColor

from hordelib.demo_model.shapes import Scene
from tests.support.looks import look, pixels
from tests.support.owner import PROJECT

README = (PROJECT / "README.md").read_text("utf-8")
LIBRARY = (PROJECT / "docs" / "library.md").read_text("utf-8")
SHOWN = {
    "circle": Scene("circle", "red", "blue"),
    "changed": Scene("circle", "green", "blue"),
    "steered": Scene("circle", "yellow", "purple"),
    "swapped": Scene("circle", "blue", "red"),
    "star": Scene("star", "yellow", "black"),
}


def examples_of(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page, re.DOTALL)


@pytest.fixture(name="made", scope="module")
def _made(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    """The folder where docs/library.md's examples ran, as the one program that they are."""
    folder = tmp_path_factory.mktemp("library")
    (folder / "models").symlink_to(checkpoint.parent.parent)
    _run("\n".join(examples_of(LIBRARY)), folder)
    return folder


def _run(program: str, folder: Path) -> str:
    """What it prints."""
    (folder / "program.py").write_text(program, "utf-8")
    done = subprocess.run(
        [sys.executable, "program.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        timeout=280,  # seconds of work take minutes on a machine that does much else
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_readmes_example_makes_the_picture(tmp_path: Path, checkpoint: Path):
    (tmp_path / "models").symlink_to(checkpoint.parent.parent)
    (program,) = examples_of(README)
    colours = ast.literal_eval(_run(program, tmp_path))["colors"]
    with Image.open(tmp_path / "circle.png") as picture:
        seen = look(picture, Scene("circle", "red", "blue"))
    assert (picture.size, seen.colour, seen.background) == ((128, 128), "red", "blue")
    values = [ImageColor.getrgb(colour["hex"]) for colour in colours]
    red, blue = 0, 2
    assert {value.index(max(value)) for value in values[:2]} == {red, blue}


@pytest.mark.parametrize("name", SHOWN)
def test_the_librarys_examples_make_what_they_say(made: Path, name: str):
    scene = SHOWN[name]
    with Image.open(made / f"{name}.png") as picture:
        seen = look(picture, scene)
    assert (seen.colour, seen.background) == (scene.colour, scene.background)
    assert seen.overlap > 0.5


def test_the_librarys_example_of_inpainting_keeps_what_is_black_in_the_mask(made: Path):
    with Image.open(made / "circle.png") as before, Image.open(made / "repainted.png") as after:
        changed = np.abs(pixels(before) - pixels(after)).max(axis=-1)
    assert changed[:, :32].max() == 0
    assert changed[:, 32:].max() > 0


def test_every_subject_of_the_library_has_an_example():
    subjects = re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", LIBRARY, re.DOTALL | re.MULTILINE)
    assert len(subjects) >= 11
    assert [title for title, text in subjects if not examples_of(text)] == []


def test_every_link_leads_somewhere():
    for page in (*PROJECT.glob("*.md"), *(PROJECT / "docs").rglob("*.md")):
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text("utf-8")):
            assert "://" in target or (page.parent / target).exists(), f"{page.name}: {target}"
