"""An owner's folder, and the command run in it: real processes, their output and exit codes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import psutil

from tests.support.sandbox_client import MODEL, WORKER_KEY
from worker.sandbox import Sandbox

PROJECT = Path(__file__).parents[2]


class Command(subprocess.Popen[str]):
    """A command that leads a session of its own, which ends with a test that fails beneath it."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        super().__exit__(kind, error, traceback)


@dataclass
class Home:
    """An owner's folder: configuration and models, and the command run in it."""

    folder: Path

    def write(self, text: str) -> None:
        (self.folder / "bridgeData.yaml").write_text(text, "utf-8")

    def start(self, *arguments: str) -> Command:
        return Command(
            [sys.executable, "-m", "worker", "--home", str(self.folder), *arguments],
            env={**os.environ, "PYTHONPATH": str(PROJECT), "DREAMER_RUNTIME": runtime()},
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: str, seconds: float = 120) -> tuple[int, str]:
        with self.start(*arguments) as process:
            output, _ = process.communicate(timeout=seconds)
        return process.returncode, output


def make_home(above: Path, checkpoint: Path) -> Home:
    """A new folder in `above`, with all tests' models."""
    folder = above / "an owner's folder"
    folder.mkdir()
    (folder / "models").symlink_to(checkpoint.parent.parent)
    return Home(folder)


def runtime() -> str:
    """Where this test's own ComfyUI comes from."""
    return os.environ.get("DREAMER_RUNTIME", str(PROJECT))


def config(horde: Sandbox, key: str = WORKER_KEY, model: str = MODEL, more: str = "") -> str:
    """Of a worker that leaves little memory free, so that others on this machine cost no job."""
    return (
        f"horde_url: {horde.url}\napi_key: {key}\ndreamer_name: tester\n"
        f"ram_to_leave_free: 256 MiB\npage: ''\nmodels_to_load: ['{model}']\n{more}"
    )


def wait_for(condition: Callable[[], object], seconds: float = 120, *, every: float = 0.1) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(every)


def wait_until_caught(pid: int, number: signal.Signals, seconds: float = 30) -> None:
    """Until Python runs in the process, and its program catches the signal (on Linux)."""

    def is_caught() -> bool:
        status = Path(f"/proc/{pid}/status").read_text("ascii")
        (mask,) = re.findall(r"^SigCgt:\s*([0-9a-f]+)$", status, re.MULTILINE) or ["0"]
        return bool(int(mask, 16) >> (number - 1) & 1)

    wait_for(is_caught, seconds, every=0.01)


def assert_nothing_left(session: int) -> None:
    """No process of the session that the command was started in is alive."""
    end = time.monotonic() + 5
    while alive := [p for p in psutil.process_iter() if _session(p) == session]:
        assert time.monotonic() < end, alive
        time.sleep(0.1)


def _session(process: psutil.Process) -> int:
    try:
        return os.getsid(process.pid) if process.status() != psutil.STATUS_ZOMBIE else -1
    except (ProcessLookupError, psutil.NoSuchProcess):
        return -1
