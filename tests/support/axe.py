"""axe-core in a tab: one that is there (AXE_CORE names its axe.min.js), or npm's."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
import tempfile
from functools import cache
from pathlib import Path

import pytest
from playwright.sync_api import Page

PACKAGE = "axe-core@4.10.3"
LACKING = f"axe-core is not asked: install npm, or name its axe.min.js in AXE_CORE ({PACKAGE})"
SERIOUS = ("serious", "critical")
_RUN = """() => axe.run(document, { resultTypes: ["violations"] }).then((found) =>
  found.violations.map((each) => [each.impact, each.id, each.nodes[0].html]))"""


def serious_problems(tab: Page) -> list[str]:
    """What axe finds serious or critical on the tab. Skips the test where there is no axe."""
    script = _axe()
    if script is None:
        pytest.skip(LACKING)
    tab.evaluate(f"() => {{ {script} }}")  # not as an element, which the page's policy refuses
    found = tab.evaluate(_RUN)
    return [f"{rule}: {node}" for impact, rule, node in found if impact in SERIOUS]


@cache
def _axe() -> str | None:
    if path := os.environ.get("AXE_CORE"):
        return Path(path).read_text("utf-8")
    npm = shutil.which("npm")
    if npm is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", "--silent", "--fetch-retries=0", PACKAGE]
        try:
            done = subprocess.run(
                command, cwd=folder, check=True, capture_output=True, text=True, timeout=60
            )
        except (subprocess.SubprocessError, OSError):
            return None
        with tarfile.open(Path(folder) / done.stdout.split()[-1]) as package:
            file = package.extractfile("package/axe.min.js")
            return file.read().decode("utf-8") if file else None
