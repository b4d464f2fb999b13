"""One child process from its start to its end: what it says, and what became of it.

Nothing here waits for a child without a limit. A thread of its own reads the pipe, so that one that
stops in the middle of a message blocks nobody who can't be freed by killing it.
"""

from __future__ import annotations

import atexit
import logging
import multiprocessing
import os
import pickle
import queue
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import cache
from multiprocessing import process as processes
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from worker.children.messages import MOST_REPORT_BYTES, Alive, Ready, Report
from worker.children.signals import STOP_SIGNALS

MOST_UNREAD = 1000  # reports; a child that says more than anybody takes is at fault
END_SECONDS = 1.5  # between the end of its pipe and its exit code
KILL_SECONDS = 5.0  # one that sits in a driver's call may not even be killed
KILLED = (-9, -15)  # exit codes; the second is what Windows' TerminateProcess looks like

log = logging.getLogger(__name__)


_HANGS = "the %s process %s can't be killed: it hangs in the system; restart this computer"


class _Garbage(Exception):
    """What the child says is no report."""


class Process:
    """A child process, started. Any thread may send, kill and look; one at a time takes reports.

    Raises OSError when the system gives no process.
    """

    def __init__(self, name: str, main: Callable[[Any, Any], None], settings: object):
        context = multiprocessing.get_context("spawn")
        self._name = name
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=main, args=(theirs, settings), name=name, daemon=True
        )
        self._sending = threading.Lock()
        self._reports: queue.SimpleQueue[Report | None] = queue.SimpleQueue()
        self._killed_for: str | None = None
        self.is_ready = False  # it has said so
        self._is_given_up = False
        self._oom_kills = count_oom_kills()
        try:
            spawn(self._process)
        finally:
            theirs.close()
        atexit.register(self._process.kill)  # it leaves SIGTERM, which multiprocessing sends, to us
        self.heard_at = time.monotonic()  # at its last word
        threading.Thread(target=self._read, name=f"{name}-reader", daemon=True).start()

    @property
    def pid(self) -> int | None:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether it can be spoken with: one that can't be killed is as good as dead."""
        return not self._is_given_up and self._process.exitcode is None

    @property
    def silent_seconds(self) -> float:
        """Since its last word; 0 until it is ready, which nobody says while libraries load."""
        return time.monotonic() - self.heard_at if self.is_ready and self.is_alive else 0.0

    def send(self, command: object, patience_seconds: float) -> None:
        """Raises OSError where nobody reads it. A child that reads nothing for so long is killed,
        or for twice as long where it has begun to.
        """
        with self._sending:
            try:
                with self._patient_for(patience_seconds):
                    self._pipe.send(command)
            except BlockingIOError:
                self._kill_for_not_reading(patience_seconds)
                raise

    def next_report(self, timeout: float) -> Report | None:
        """None when there is none in time. Raises EOFError when none will come any more."""
        try:
            report = self._reports.get(timeout=timeout)
        except queue.Empty:
            return None
        if report is None:
            raise EOFError
        return report

    def kill(self, reason: str) -> None:
        """End it at once; `reason` is what it died of, unless it is dead already."""
        if self.is_alive:
            self._killed_for = self._killed_for or reason
        self._process.kill()
        self._hang_up()
        if not self.ends_within(KILL_SECONDS):
            self._give_up()
        atexit.unregister(self._process.kill)

    def _give_up(self) -> None:
        """It hangs in the system, such as in a driver's call, and nobody waits for it any more."""
        log.error(_HANGS, self._name, self.pid)
        self._is_given_up = True
        # Else multiprocessing would wait for it, without a limit, when our own process ends.
        vars(processes)["_children"].discard(self._process)

    def ends_within(self, seconds: float) -> bool:
        """Asks the system: `join` would wait for ever for a child that only closed its files."""
        end = time.monotonic() + seconds
        while self.is_alive and time.monotonic() < end:
            time.sleep(0.02)
        return not self.is_alive

    def fate(self) -> str:
        """What it died of. One that only broke its pipe off is killed."""
        if not self.ends_within(END_SECONDS):
            self.kill(f"the {self._name} closed its pipe")
        code = self._process.exitcode
        if self._killed_for is not None and (code is None or code in KILLED):
            return self._killed_for
        # Or it was dying already when we killed it: a driver may take seconds to let go of it.
        return cause_of_death(self._name, code, count_oom_kills() - self._oom_kills)

    def _read(self) -> None:
        """The reader's thread: ends with the child, or with the first word that makes no sense."""
        try:
            while True:
                self._take(self._pipe.recv_bytes(MOST_REPORT_BYTES))
        except EOFError:
            pass
        except (_Garbage, OSError, MemoryError):  # too long a message, or one cut off by death
            if not self.ends_within(END_SECONDS / 2):
                self.kill(f"the {self._name} spoke garbage")
        finally:
            self._reports.put(None)

    def _take(self, message: bytes) -> None:
        report = _unpickled(message)
        self.heard_at = time.monotonic()
        self.is_ready |= isinstance(report, Ready)
        if isinstance(report, Alive):
            return
        if self._reports.qsize() >= MOST_UNREAD:
            raise _Garbage
        self._reports.put(report)

    def _hang_up(self) -> None:
        """Wake whoever reads or sends, even where a child of the child keeps the pipe open."""
        if sys.platform == "win32":
            return  # no child of a child has its end of a named pipe
        with suppress(OSError), self._socket() as pipe:
            pipe.shutdown(socket.SHUT_RDWR)

    @contextmanager
    def _patient_for(self, seconds: float) -> Generator[None]:
        """A write that nobody reads ends: as BlockingIOError, or by the child's death."""
        if sys.platform == "win32":  # the pipe there is no socket, and a write knows no time-out
            with self._killed_after(seconds):
                yield
            return
        with self._socket() as pipe:
            pipe.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(seconds))
        yield

    @contextmanager
    def _killed_after(self, seconds: float) -> Generator[None]:
        timer = threading.Timer(seconds, self._kill_for_not_reading, (seconds,))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _kill_for_not_reading(self, seconds: float) -> None:
        self.kill(f"the {self._name} hung: it read nothing for {seconds:g} s")

    def _socket(self) -> socket.socket:
        """The pipe as what it is, to be closed: the pipe stays open."""
        return socket.socket(fileno=os.dup(self._pipe.fileno()))


def _timeval(seconds: float) -> bytes:
    """How long a write waits for its reader, as SO_SNDTIMEO takes it; 0 would be for ever."""
    return struct.pack("@ll", *divmod(max(1, round(seconds * 1_000_000)), 1_000_000))


def _unpickled(message: bytes) -> Report:
    try:
        report = pickle.loads(message)
    except Exception as error:  # garbage may raise anything
        raise _Garbage from error
    if not isinstance(report, Report):
        raise _Garbage
    return report


_Order = tuple[BaseProcess, "Future[None]"]


def spawn(process: BaseProcess) -> None:
    """Start it, from any thread. Raises OSError when the system gives no process.

    One thread starts all of them, and lives as long as the program: Linux kills such a child when
    the *thread* that started it ends (`worker.children.child_side`).
    """
    started: Future[None] = Future()
    _orders().put((process, started))
    started.result()


@cache
def _orders() -> SimpleQueue[_Order]:
    """The one thread's, which is made for the first order."""
    orders: SimpleQueue[_Order] = SimpleQueue()
    threading.Thread(target=_serve, args=(orders,), name="spawner", daemon=True).start()
    return orders


def _serve(orders: SimpleQueue[_Order]) -> None:
    while True:
        _carry_out(*orders.get())


def _carry_out(process: BaseProcess, started: Future[None]) -> None:
    try:
        with _signals_blocked():
            process.start()
    except Exception as error:  # noqa: BLE001 - it is raised where the order came from
        started.set_exception(error)
    else:
        started.set_result(None)


@contextmanager
def _signals_blocked() -> Generator[None]:
    """Keep Ctrl-C from a child that does not ignore it yet; children inherit the mask."""
    if sys.platform == "win32":
        yield
        return
    resource_tracker.ensure_running()  # multiprocessing's own; its start would lift the block
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


VMSTAT = Path("/proc/vmstat")


def cause_of_death(name: str, exit_code: int | None, oom_kills: int) -> str:
    """`oom_kills` is how many processes the system ended for want of memory since it started.

    >>> cause_of_death("engine", -11, 0)
    'the engine process was ended by SIGSEGV'
    """
    if exit_code is None or exit_code >= 0:
        return f"the {name} process ended with exit code {exit_code}"
    ended = f"the {name} process was ended by {_signal_name(-exit_code)}"
    if exit_code == -9 and oom_kills > 0:
        return f"{ended}: the system ran out of memory (remedy: a larger ram_to_leave_free)"
    if _signal_name(-exit_code) == "SIGBUS":
        return f"{ended}: a file that it had in memory was cut off, or can't be read any more"
    return ended


def count_oom_kills() -> int:
    """The system's own count since it started; 0 where it keeps none (it is Linux')."""
    try:
        counters = dict(line.split(" ", 1) for line in VMSTAT.read_text("ascii").splitlines())
    except OSError:
        return 0
    return int(counters.get("oom_kill", 0))


def _signal_name(number: int) -> str:
    names = {known.value: known.name for known in signal.Signals}
    return names.get(number, f"signal {number}")
