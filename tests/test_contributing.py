"""Pages name what is there, and commits get the checks of the test command."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from tests.support.owner import PROJECT
from tests.test_types import ARGUMENTS

GUIDE = (PROJECT / "CONTRIBUTING.md").read_text("utf-8")
PAGES = sorted([*PROJECT.glob("[CR][OE]*.md"), *(PROJECT / "docs").rglob("*.md")])
ROOTS = (
    "worker|hordelib|benchmarks(?=/)|tests|docs|comfy_workflows|typings|pyproject|bridgeData|\\.ci"
)
PATH = re.compile(rf"(?<![/\w.-])((?:{ROOTS})(?:[/.][\w.-]*\w)+)(?![\w/{{])")
WRITTEN_LATER = {"bridgeData.yaml", "bridgeData.yaml.backup-1"}
NAMED = re.findall(r"`([A-Za-z]\w+)`,? (?:in|of) `([\w/]+\.py)`", GUIDE)


def paths_of(page: Path) -> set[str]:
    return set(PATH.findall(page.read_text("utf-8"))) - WRITTEN_LATER


def test_the_guide_names_files_and_what_is_in_them():
    assert len(paths_of(PROJECT / "CONTRIBUTING.md")) > 30
    assert len(NAMED) >= 6


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_path_that_a_page_names_is_there(page: Path):
    assert {path for path in paths_of(page) if not _is_there(path)} == set()


def _is_there(path: str) -> bool:
    """A path, a module (`hordelib.job.payload`), or a module with something in it (`….Engine`)."""
    if "/" in path or (PROJECT / path).exists():
        return (PROJECT / path).exists()
    module = PROJECT / path.replace(".", "/")
    return any(
        each.is_dir() or each.with_suffix(".py").is_file() for each in (module, module.parent)
    )


@pytest.mark.parametrize(("name", "file"), NAMED)
def test_every_name_is_in_the_file_that_the_guide_says(name: str, file: str):
    assert re.search(rf"\b{name}\b", (PROJECT / file).read_text("utf-8"))


def test_the_hooks_of_a_commit_run_the_checks_of_the_test_command():
    launcher = (PROJECT / "horde-bridge.sh").read_text("utf-8")
    floor = dict(re.findall(r"^ +check (\w+) in_venv (.+)$", launcher, re.MULTILINE))
    assert len(floor) == 3
    floor["types"] = shlex.join([*ARGUMENTS, "python"])  # which are one of the tests
    settings = cast(
        dict[str, Any], yaml.safe_load((PROJECT / ".pre-commit-config.yaml").read_text("utf-8"))
    )
    (local,) = settings["repos"]  # more would be fetched
    assert local["repo"] == "local"
    assert {hook["id"]: _arguments_of(hook) for hook in local["hooks"]} == {
        name: _plain(shlex.split(command)) for name, command in floor.items()
    }


def _arguments_of(hook: dict[str, Any]) -> list[str]:
    """What the hook gives to Python after `-P`."""
    assert (hook["language"], hook["pass_filenames"]) == ("system", False)
    bash, dash_c, script = shlex.split(hook["entry"])
    assert (bash, dash_c) == ("bash", "-c")
    _, _, arguments = script.partition(" -P ")
    return _plain(shlex.split(arguments))


def _plain(words: list[str]) -> list[str]:
    """The path of Python itself is written in two ways."""
    return ["PYTHON" if re.search(r"python\"?$", word) else word for word in words]
