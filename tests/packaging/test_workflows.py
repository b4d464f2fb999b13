"""What runs at GitHub: a linter finds nothing, and the scripts are those that everybody calls."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

from tests.support.owner import PROJECT
from worker.version import VERSION

WORKFLOWS = sorted((PROJECT / ".github" / "workflows").glob("*.yml"))


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("vendor.github-workflows", WORKFLOWS),
        ("vendor.dependabot", [PROJECT / ".github" / "dependabot.yml"]),
    ],
)
def test_the_linter_of_workflows_finds_nothing(schema: str, files: list[Path]):
    linter = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema]
    done = subprocess.run([*linter, *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("script", ["run", "torch", "build", "notes", "licences", "docs"])
def test_the_scripts_that_they_call_are_there(script: str):
    assert any(f".ci/{script}" in workflow.read_text("utf-8") for workflow in WORKFLOWS)
    assert os.access(PROJECT / ".ci" / script, os.X_OK)


def test_the_notes_of_a_release_are_its_part_of_the_changelog(tmp_path: Path):
    (tmp_path / ".ci").mkdir()
    script = tmp_path / ".ci" / "notes"
    script.write_bytes((PROJECT / ".ci" / "notes").read_bytes())
    script.chmod(0o755)
    changelog = (
        "# Changelog\n\n## Unreleased\n\n- later\n\n## 0.2.0 - 2026-12-24\n\n- now\n\n## 0.2\n"
    )
    (tmp_path / "CHANGELOG.md").write_text(changelog)
    told = subprocess.run([script, "0.2.0"], capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["-", "now"]
    missing = subprocess.run([script, "0.3.0"], capture_output=True, text=True, check=False)
    assert missing.returncode == 1
    assert missing.stderr.startswith('error: CHANGELOG.md has no "## 0.3.0"')


def test_the_newest_release_in_the_changelog_is_the_version_that_is_told():
    headings = re.findall(r"^## (.+)$", (PROJECT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert headings[0] == "Unreleased"
    newest, _, day = headings[1].partition(" - ")
    assert newest == VERSION
    assert date.fromisoformat(day)


def test_the_command_tells_the_version_without_any_package():
    told = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _VERSION], capture_output=True, text=True, check=False
    )
    assert told.stdout == f"Dreamer {VERSION}\n", told.stderr


_VERSION = (
    f"import sys; sys.path.insert(0, {str(PROJECT)!r}); sys.argv = ['dreamer', '--version']\n"
    "from worker.__main__ import main\nmain()"
)
