"""The documentation's site is built by one command, without a link that leads nowhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hordelib import __all__ as PUBLIC
from tests.support.owner import PROJECT
from worker.config.keys import EXPECTS


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    into = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [PROJECT / ".ci" / "docs", into],
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    return into


def test_each_page_of_the_docs_is_in_it(site: Path):
    docs = PROJECT / "docs"
    for page in docs.rglob("*.md"):
        name = page.relative_to(docs).with_suffix("")
        folder = name.parent if name.name == "README" else name
        assert (site / folder / "index.html").is_file(), name


def test_the_reference_is_that_of_the_code(site: Path):
    keys = (site / "reference" / "keys" / "index.html").read_text("utf-8")
    assert not [key for key in EXPECTS if f'id="{key}"' not in keys]
    library = (site / "reference" / "library" / "index.html").read_text("utf-8")
    assert not [name for name in PUBLIC if f"{name}" not in library]
    commands = (site / "reference" / "commands" / "index.html").read_text("utf-8")
    assert 'id="dreamer-models-add"' in commands


def test_a_page_loads_nothing_from_elsewhere(site: Path):
    for page in site.rglob("*.html"):
        text = page.read_text("utf-8")
        assert not re.search(r'<(script|img)[^>]+src="(https?:)?//', text), page
        assert not re.search(r'<link[^>]+stylesheet[^>]+href="(https?:)?//', text), page


def test_licences_of_what_it_runs_on_are_listed():
    script = [sys.executable, PROJECT / ".ci" / "licences"]
    told = subprocess.run(script, capture_output=True, text=True, check=True).stdout
    rows = dict(line.split(maxsplit=1) for line in told.splitlines())
    assert rows["pydantic"] == "MIT"
    assert rows["ComfyUI"] == "GPL-3.0-only"
