"""Remedies can be typed as they are told, however the program was run."""

from __future__ import annotations

import sys
from pathlib import Path
from shlex import quote

import pytest

from tests.support.owner import PROJECT, Home
from worker.command_line import FETCH_SAFETY, INSTALL_SAFETY, _for_windows, as_typed

MODULE = f"{quote(sys.executable)} -m worker"


@pytest.mark.parametrize(
    ("argv", "command"),
    [
        (["/x/worker/__main__.py", "--home", str(PROJECT), "run"], "./horde-bridge.sh"),
        (["/x/worker/__main__.py", "--home", "/my rig", "run"], f"{MODULE} --home '/my rig'"),
        (["/x/worker/__main__.py", "--home=/rig", "run"], f"{MODULE} --home /rig"),
        (["/usr/bin/dreamer", "--home", "/rig", "run"], "dreamer --home /rig"),
        (["/usr/bin/dreamer", "models", "add", "--dry-run"], "dreamer"),
    ],
)
def test_a_remedy_names_what_was_run_and_its_folder(
    argv: list[str], command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    assert as_typed(f"run {FETCH_SAFETY}", argv) == f"run {command} fetch --safety"
    installed = as_typed(f"run {INSTALL_SAFETY}", argv)
    assert installed.endswith(f"{command} fetch --safety") or command == "./horde-bridge.sh"
    assert ("pip install" in installed) is command.startswith("dreamer")


def test_a_worker_of_another_folder_tells_its_own_remedies(tmp_path: Path):
    home = Home(tmp_path)
    keys = "api_key: '0123456789abcdef'\ndreamer_name: 'a [/b] rig'\nmodels_to_load: [all]\n"
    home.write(keys + "page: ''\n")  # which would be waited at
    told = home.run("run")[1].splitlines()[-1]
    assert told.startswith("dreamer: safety: required")
    assert f"-m worker --home {tmp_path} fetch --safety" in told


def test_on_windows_a_remedy_names_the_scripts_that_a_console_runs():
    told = "run ./update-runtime.sh --safety, then ./horde-bridge.sh check"
    assert _for_windows(told) == "run update-runtime.cmd --safety, then horde-bridge.cmd check"
