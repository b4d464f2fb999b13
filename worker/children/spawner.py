"""Starts child processes, all from one thread that lives as long as the program.

Linux kills such a child when the *thread* that started it ends (`worker.children.child_side`), and
those that want a child come and go.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import cache
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess
from queue import SimpleQueue

from worker.children.signals import STOP_SIGNALS

_Order = tuple[BaseProcess, "Future[None]"]


def spawn(process: BaseProcess) -> None:
    """Start it, from any thread. Raises OSError when the system gives no process."""
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
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # multiprocessing's own; its start would lift the block
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
