"""The test suite itself: it says the same however it was started."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from tests.support.owner import PROJECT

CHILD = (
    "import signal; print([signal.getsignal(n) is signal.SIG_IGN for n in"
    " (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)], signal.pthread_sigmask(0, ()))"
)
CONFIGURED = f"""
import subprocess, sys
from tests.conftest import pytest_configure
pytest_configure()
subprocess.run([sys.executable, "-c", {CHILD!r}], check=True)
"""


def _be_deaf() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGHUP))


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_what_tests_start_hears_signals_though_the_suite_was_started_by_nohup():
    done = subprocess.run(
        [sys.executable, "-c", CONFIGURED],
        cwd=PROJECT,
        preexec_fn=_be_deaf,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "[False, False, False] set()" in done.stdout
