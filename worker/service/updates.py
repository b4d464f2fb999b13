"""A worker of a clone that takes newer releases by itself, where `auto_update` says so.

It drains as at its owner's order; then its process goes on as the set-up's `--self` and, whatever
came of that, as a worker again. The process stays the same, for whoever started it.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from hordelib.files.whole_files import write_whole
from worker.config.keys import BridgeConfig
from worker.errors import DocumentMissing
from worker.service.orders import Order, Orders
from worker.service.releases import Release
from worker.service.state_folder import STATE

log = logging.getLogger(__name__)

FIRST_SECONDS = 600.0  # a worker serves first
LOOK_SECONDS = 6 * 3600.0  # between two looks; the network is asked once a day
TRIED = "update_tried"  # in the state folder: the version that is not tried again
PROJECT = Path(__file__).resolve().parents[2]
_GO_ON = """
"$0/update-runtime.sh" --self --home "$1"
home=$1
shift
exec "$0/horde-bridge.sh" --home "$home" run "$@"
"""


class Updates:
    """`newest` is a newer release, or None; it raises DocumentMissing."""

    def __init__(
        self,
        config: BridgeConfig,
        home: Path,
        newest: Callable[[], Release | None],
        project: Path = PROJECT,
    ):
        self._is_on = config.auto_update == "drain"
        self._home = home
        self._state = home / STATE
        self._newest = newest
        self._project = project
        self.taken = ""  # the version for which the worker drains

    @property
    def is_possible(self) -> bool:
        """Only a clone can take one, on systems with its scripts."""
        return os.name != "nt" and (self._project / ".git").exists()

    @contextmanager
    def watched(self) -> Generator[None]:
        """While this lasts, it is looked for a newer release now and then."""
        if not self._is_on:
            yield
            return
        if not self.is_possible:
            log.warning("auto_update: drain does nothing here, since this is no clone")
            yield
            return
        over = threading.Event()
        thread = threading.Thread(
            target=self._look_again, args=(over,), name="updates", daemon=True
        )
        thread.start()
        try:
            yield
        finally:
            over.set()

    def _look_again(self, over: threading.Event) -> None:
        pause = FIRST_SECONDS
        while not self.taken and not over.wait(pause):
            with suppress(DocumentMissing, OSError):
                self.look()
            pause = LOOK_SECONDS

    def look(self) -> None:
        """Drain for a release that was not tried before, but not against another order of the
        owner's. Raises DocumentMissing and OSError."""
        if Orders(self._state).is_given(Order.pause, Order.drain, Order.stop):
            return
        newer = self._newest()
        if newer is None or newer.version == self._tried():
            return
        write_whole(self._state / TRIED, newer.version.encode())  # before: it may never come back
        Orders(self._state).give(Order.drain)
        self.taken = newer.version
        log.info("draining for the release %s, as auto_update says", newer.version)

    def _tried(self) -> str:
        try:
            return (self._state / TRIED).read_text("utf-8", "replace")
        except OSError:
            return ""

    def go_on(self, options: Sequence[str]) -> None:
        """To be called once the worker has ended; never returns where it drained for a release.

        `options` are those of `run`.
        """
        if not self.taken or Orders(self._state).is_given(Order.stop):
            return
        with suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        command = ["sh", "-c", _GO_ON, str(self._project), str(self._home), *options]
        os.execv("/bin/sh", command)
