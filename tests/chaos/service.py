"""The worker as its owner runs it: one process after the other, in one home."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from tests.support.owner import PROJECT, runtime, wait_until_caught

STOP_SECONDS = 75.0  # what the worker allows itself, and a little
LEAVE_SECONDS = 8.0  # for children to notice that their bridge was killed
LINES_OF_LOG = 40
BUGS = ("a bug of ours", "internal error", "Traceback", "not ended in time")


class EndedByItself(AssertionError):
    """The worker ended, and nobody had told it to."""


class Service:
    """Starts and stops `command`. Its output goes into `home`/output.log."""

    def __init__(self, command: Sequence[str], home: Path):
        self._command = command
        self.home = home
        self._process: subprocess.Popen[bytes] | None = None
        self._sessions: list[int] = []

    def start(self) -> None:
        with (self.home / "output.log").open("ab") as output:
            self._process = subprocess.Popen(
                self._command,
                env={**os.environ, "PYTHONPATH": str(PROJECT), "DREAMER_RUNTIME": runtime()},
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._sessions.append(self._process.pid)

    def insist_on_life(self) -> None:
        """Raises EndedByItself."""
        if (code := self._running.poll()) is not None:
            raise EndedByItself(f"the worker ended with exit code {code}\n{self.last_words()}")

    def kill(self) -> float:
        """SIGKILL; the time at which it was dead."""
        self.insist_on_life()
        self.thaw()
        self._running.kill()
        self._running.wait()
        return time.time()

    def stop(self) -> None:
        """SIGTERM, and insist on a clean end."""
        if (code := self.end()) != 0:
            raise EndedByItself(f"SIGTERM gave exit code {code}\n{self.last_words()}")

    def end(self) -> int:
        """SIGTERM; the exit code."""
        self.insist_on_life()
        wait_until_caught(self._running.pid, signal.SIGTERM)
        self._running.terminate()
        return self._running.wait(STOP_SECONDS)

    def children(self) -> list[psutil.Process]:
        """Engine, judge, and what Python adds; empty while the worker is starting."""
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(self._running.pid).children(recursive=True)
        return []

    def freeze(self) -> None:
        """The worker's own process, so that what is looked at stays so until it is killed."""
        self.insist_on_life()
        self._running.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let stopped children go on, so that they can notice what has become of their bridge."""
        for child in self.children():
            with suppress(psutil.NoSuchProcess):
                child.resume()

    def limit_files(self, most_bytes: int) -> None:
        """Make writes of the worker and its children beyond `most_bytes` of a file fail."""
        _limit_files(self._running.pid, most_bytes)
        for child in self.children():  # after it, so that none inherits what is taken back
            _limit_files(child.pid, most_bytes)

    def has_open(self, path: Path) -> bool:
        """Whether the worker itself holds this file open."""
        with suppress(psutil.NoSuchProcess):
            return str(path) in {file.path for file in psutil.Process(self.pid).open_files()}
        return False

    def close(self) -> None:
        """Kill what is left of all of them; for the end of a test that failed."""
        for process in self.leftovers(0):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        if self._process is not None:
            self._process.wait()

    def leftovers(self, patience_seconds: float = LEAVE_SECONDS) -> list[psutil.Process]:
        """Processes of any worker that was started here, once they have had time to leave."""
        until = time.monotonic() + patience_seconds
        while left := [one for one in psutil.process_iter() if _session(one) in self._sessions]:
            if time.monotonic() >= until:
                break
            time.sleep(0.1)
        return left

    def complaints(self) -> list[str]:
        """Lines that tell of a bug of ours."""
        text = (self.home / "output.log").read_text("utf-8", "replace")
        return [line for line in text.splitlines() if any(sign in line for sign in BUGS)]

    def last_words(self) -> str:
        text = (self.home / "output.log").read_text("utf-8", "replace")
        return "\n".join(text.splitlines()[-LINES_OF_LOG:])

    @property
    def pid(self) -> int:
        return self._running.pid

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process


def _limit_files(pid: int, most_bytes: int) -> None:
    with suppress(ProcessLookupError):
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (most_bytes, hard))


def _session(process: psutil.Process) -> int:
    try:
        is_dead = process.status() == psutil.STATUS_ZOMBIE
        return -1 if is_dead else os.getsid(process.pid)
    except (ProcessLookupError, psutil.NoSuchProcess):
        return -1
