"""The whole project's types. It takes a minute, so that it is done beside the other tests."""

import os
import subprocess
import sys

import pytest

from tests.support.owner import PROJECT

# Node's short-lived objects have room to die before they are copied: a third less time.
NODE = {"NODE_OPTIONS": "--max-semi-space-size=128"}
ARGUMENTS = ("-m", "basedpyright", "--pythonpath")  # and Python's path


def faults(*arguments: str) -> str:
    command = [sys.executable, "-P", *ARGUMENTS, sys.executable, *arguments]
    done = subprocess.run(
        command,
        cwd=PROJECT,
        env={**os.environ, **NODE},
        capture_output=True,
        text=True,
        check=False,
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


@pytest.mark.timeout(1200)
def test_basedpyright_finds_no_fault():
    assert faults() == ""


@pytest.mark.timeout(1200)
def test_what_runs_on_windows_calls_nothing_that_is_not_there():
    assert faults("--pythonplatform", "Windows", "worker", "hordelib") == ""
