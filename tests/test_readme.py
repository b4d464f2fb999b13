"""What the README promises a reader."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from PIL import Image

from hordelib.demo_model.shapes import Scene
from tests.support.looks import look
from tests.support.owner import PROJECT

README = (PROJECT / "README.md").read_text("utf-8")


def test_the_library_example_makes_the_picture(tmp_path: Path, checkpoint: Path):
    (tmp_path / "models").symlink_to(checkpoint.parent.parent)
    (program,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        check=True,
        timeout=200,
    )
    with Image.open(tmp_path / "circle.png") as picture:
        seen = look(picture, Scene("circle", "red", "blue"))
    assert (picture.size, seen.colour, seen.background) == ((128, 128), "red", "blue")


def test_every_link_leads_somewhere():
    for page in (*PROJECT.glob("*.md"), *(PROJECT / "docs").rglob("*.md")):
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text("utf-8")):
            assert "://" in target or (page.parent / target).exists(), f"{page.name}: {target}"
