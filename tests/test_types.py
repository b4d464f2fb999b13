"""The whole project's types. It takes a minute, so that it is done beside the other tests."""

import subprocess
import sys

import pytest

from tests.support.owner import PROJECT

ARGUMENTS = ("-m", "basedpyright", "--pythonpath")  # and Python's path


@pytest.mark.timeout(1200)
def test_basedpyright_finds_no_fault():
    command = [sys.executable, "-P", *ARGUMENTS, sys.executable]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
