"""A peer's process, seen from outside: started, asked, measured and ended."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO

import psutil

from benchmarks.peers.protocol import Answer, Job, PeerFailed, Setup, answer_of, to_line

END_SECONDS = 10.0  # for a peer to let go of everything
LOG_BYTES = 4000  # of a log's end in which the reason is looked for
FORGET_PEAK = "5"  # for /proc/PID/clear_refs: the peak of the resident set starts again


class PeerProcess:
    """One peer at work. It and all that it starts end with `close`.

    What it says on standard error goes to `log`.
    """

    def __init__(self, command: Sequence[str], setup: Setup, environment: Mapping[str, str]):
        self.started = time.perf_counter()
        self._log = Path(setup.scratch) / "peer.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*command, json.dumps(asdict(setup))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=dict(environment),
                text=True,
                start_new_session=True,  # Ctrl-C is ours alone, and all that it starts ends with it
            )
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._listen, name="peer", daemon=True).start()

    def ask(self, jobs: Sequence[Job], limit_seconds: float) -> Answer:
        """Have it do these jobs. Raises PeerFailed where it does not answer in time, or ends."""
        before = self._cpu_seconds()
        line = self._exchange(to_line(jobs), limit_seconds)
        return replace(answer_of(line), cpu_seconds=self._cpu_seconds() - before)

    def _exchange(self, line: str, limit_seconds: float) -> str:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended; why, its last line or its log says
            self._process.stdin.write(line)
            self._process.stdin.flush()
        try:
            answer = self._lines.get(timeout=limit_seconds)
        except queue.Empty:
            raise PeerFailed(f"no answer within {limit_seconds:g} s") from None
        if not answer:
            raise PeerFailed(self._last_words())
        return answer

    def forget_peak(self) -> None:
        """Begin to measure `peak_bytes` anew."""
        for process in self._all():
            with suppress(
                OSError
            ):  # it has ended, or may not be measured anew: then since its start
                Path(f"/proc/{process.pid}/clear_refs").write_text(FORGET_PEAK)

    def peak_bytes(self) -> int:
        """The most main memory that the largest of its processes had, pages of files included."""
        return max((_peak_bytes(process.pid) for process in self._all()), default=0)

    def close(self) -> None:
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(END_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _listen(self) -> None:
        output: IO[str] | None = self._process.stdout
        assert output is not None
        with output:
            for line in output:
                self._lines.put(line)
        self._lines.put("")

    def _all(self) -> list[psutil.Process]:
        try:
            first = psutil.Process(self._process.pid)
            return [first, *first.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def _cpu_seconds(self) -> float:
        return sum(_cpu_seconds(process) for process in self._all())

    def _last_words(self) -> str:
        lines = self._log.read_bytes()[-LOG_BYTES:].decode("utf-8", "replace").split("\n")
        spoken = [line.strip() for line in lines if line.strip()]
        return spoken[-1] if spoken else f"it ended with exit code {self._process.wait()}"


def _cpu_seconds(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return times.user + times.system


def _peak_bytes(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text("ascii", "replace")
    except OSError:
        return 0
    sizes = (line.split() for line in status.splitlines() if line.startswith("VmHWM:"))
    return next((int(kib) << 10 for _, kib, *_ in sizes), 0)
