"""The child's side of the pipe: what every child process of the bridge does in the same way."""

from __future__ import annotations

import atexit
import ctypes
import faulthandler
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn, TextIO

from hordelib.errors import DeviceFault, HordelibError
from hordelib.files.whole_files import for_owner, make_private, size_on_disk
from worker.children.messages import Alive, Broken, Stop
from worker.children.signals import STOP_SIGNALS

HEARTBEAT_SECONDS = 1.0
PR_SET_PDEATHSIG = 1  # prctl(2)
LOG_BYTES = 5 << 20  # a longer log is put aside
LOG_SECONDS = 60.0  # between two looks whether it is

log = logging.getLogger(__name__)


def set_up_process(log_file: Path) -> None:
    """First thing in a spawned process: its life, signals and the terminal are the bridge's."""
    _leave_signals_to_the_bridge()
    _write_to(log_file)
    _die_with_the_bridge()


def leave_no_semaphore() -> None:
    """For children whose libraries draw progress bars, which takes a lock among processes.

    A killed child can't take that back, of which multiprocessing would warn at the bridge's end.
    """
    from tqdm import tqdm

    bar: Any = tqdm  # its types are incomplete
    bar.set_lock(threading.RLock())


class Child:
    """Takes commands and sends reports; no child outlives its bridge.

    `heartbeat_seconds`: after how many without a word it says that it is alive.
    """

    def __init__(self, pipe: Connection, heartbeat_seconds: float = HEARTBEAT_SECONDS):
        self._pipe = pipe
        self._heartbeat_seconds = heartbeat_seconds
        self._sending = threading.Lock()
        self._stopped = threading.Event()
        self._last_word = time.monotonic()

    def commands(self) -> Iterator[Any]:
        """What the bridge asks for, until it says Stop; the process exits when it is gone.

        From the first one on, a thread says that this process is alive, where nothing else was said
        for long.
        """
        threading.Thread(target=self._heartbeat, name="heartbeat", daemon=True).start()
        while not isinstance(command := self._next(), Stop):
            yield command
        self._stopped.set()

    def report(self, report: object) -> None:
        """Any thread may."""
        try:
            with self._sending:
                self._pipe.send(report)
                self._last_word = time.monotonic()
        except OSError:
            os._exit(1)  # nobody listens any more

    def leave(self) -> None:
        """Have this process end as soon as multiprocessing has cleaned up after itself.

        Python would take apart all that was imported, for a second.
        """
        atexit.register(os._exit, 0)

    def give_up(self, error: Exception) -> NoReturn:
        """Tell the bridge why this process can't go on, and end it."""
        log.error("this process can't go on", exc_info=error)
        known = isinstance(error, HordelibError)
        reason = str(error) if known else f"{type(error).__name__}: {error}"
        fault = error.with_traceback(None) if isinstance(error, DeviceFault) else None
        self.report(Broken(reason, fault))
        os._exit(1)

    def _next(self) -> object:
        try:
            return self._pipe.recv()
        except (EOFError, OSError):
            log.warning("the bridge is gone: exiting")
            os._exit(1)

    def _heartbeat(self) -> None:
        longest = self._heartbeat_seconds
        while not self._stopped.wait(self._last_word + longest - time.monotonic()):
            if time.monotonic() - self._last_word >= longest:
                self.report(Alive())


def _die_with_the_bridge() -> None:
    """Linux kills this process when the bridge dies, even while it is frozen or busy.

    Elsewhere it notices the end of its pipe, as soon as it reads.
    """
    if sys.platform != "linux":
        return
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        log.warning("no signal at the bridge's death: %s", os.strerror(ctypes.get_errno()))
    bridge = parent_process()
    if bridge is not None and bridge.pid != os.getppid():  # it died before we asked
        os._exit(1)


def _leave_signals_to_the_bridge() -> None:
    """They reach the whole process group; what they mean for the job is for the bridge."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if sys.platform != "win32":  # the bridge blocked them around the spawn
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


def _write_to(log_file: Path) -> None:
    """Send all that this process prints to a file: the terminal is the bridge's."""
    _redirect_to(log_file)
    faulthandler.enable(sys.stderr)
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    threading.Thread(target=_keep_short, args=(log_file,), name="log", daemon=True).start()


def _redirect_to(log_file: Path) -> None:
    with open_log(log_file) as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())


def _keep_short(log_file: Path) -> None:
    """A child may live for months."""
    while True:
        time.sleep(LOG_SECONDS)
        if size_on_disk(log_file) > LOG_BYTES:
            _redirect_to(log_file)


def open_log(log_file: Path) -> TextIO:
    """The file; where it can't be had, nowhere, and that is said: no child fails for want of it."""
    try:
        make_private(log_file.parent)
        if size_on_disk(log_file) > LOG_BYTES:
            with suppress(PermissionError):  # Windows renames no file that is open: it grows on
                log_file.replace(log_file.with_suffix(".old.log"))
        return open(log_file, "a", 1, "utf-8", "replace", opener=for_owner)
    except OSError as error:
        with suppress(OSError):
            print(f"nothing is logged to {log_file}: {error.strerror}", file=sys.stderr, flush=True)
        return open(os.devnull, "a", encoding="utf-8")
