"""A worker in a process of its own, with a scripted engine, whose page fails when it is told to.

    python -m tests.support.worker_with_a_page HOME HOW

Once the file `fail` is in the home folder, "loop" stops the page's event loop, and "thread" raises
SystemExit in its thread.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from tests.support import scripted_engine
from tests.support.owner import PROJECT, Command
from worker.children.signals import StopSignals
from worker.cli.serving import run_lives, run_worker
from worker.config.config import load_config
from worker.page.server import PageServer
from worker.service.assembly import Children


def start(home: Path, how: str, output: int = subprocess.PIPE) -> Command:
    """The process, whose output can be read; `how` its page is to fail."""
    return Command(
        [sys.executable, "-m", "tests.support.worker_with_a_page", str(home), how],
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def main() -> int:
    home, how = Path(sys.argv[1]), sys.argv[2]
    signals = StopSignals.caught()
    threading.Thread(target=_fail, args=(home / "fail", how), daemon=True).start()
    try:

        def live() -> None:
            config = load_config(home / "bridgeData.yaml")
            run_worker(config, home, signals, Children(engine=scripted_engine.main))

        run_lives(live, home, signals)
    finally:
        signals.end()
    return 0


def _fail(when: Path, how: str) -> None:
    while not when.exists():
        time.sleep(0.05)
    (thread,) = [each for each in threading.enumerate() if each.name == "page"]
    page: PageServer = vars(thread)["_target"].__self__
    loop = page.loop
    if how == "loop":
        loop.call_soon_threadsafe(loop.stop)
        return
    ident = ctypes.c_ulong(thread.ident or 0)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, ctypes.py_object(SystemExit))
    with suppress(RuntimeError):  # the loop is closed already
        loop.call_soon_threadsafe(lambda: None)  # it wakes up, and meets it


if __name__ == "__main__":
    sys.exit(main())
