"""A worker of a clone that takes newer releases by itself, where `auto_update` says so.

What can be done while it serves is done first: the release is fetched, and looked at. Only then it
drains, as at its owner's order; its process goes on as the set-up's `--self` and, whatever came of
that, as a worker again. The process stays the same, for whoever started it.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter

from hordelib.files.json_file import JsonFile
from hordelib.files.whole_files import write_whole
from worker.backoff import Backoff
from worker.command_line import INSTALLER
from worker.config.keys import BridgeConfig
from worker.errors import DocumentMissing, UsageError
from worker.models.inventory import ModelsFolder
from worker.service.orders import OF_ONE_LIFE, Given, Order, Orders
from worker.service.releases import Release, news
from worker.service.state_folder import STATE

log = logging.getLogger(__name__)

FIRST_SECONDS = 600.0  # a worker serves first, and waits so long after a first failure
LOOK_SECONDS = 6 * 3600.0  # between two looks; GitHub is asked once a day
FIRST_PAUSE, MOST_PAUSE = 3600.0, 86400.0  # between two tries of one release; each doubles it
TRIED = "update_tried.json"  # in the state folder
PROJECT = Path(__file__).resolve().parents[2]
_GO_ON = """
"$0/update-runtime.sh" --self --home "$1" &
trap 'kill -TERM $!; wait $!; exit 143' INT TERM HUP
wait $!
trap - INT TERM HUP
home=$1
shift
exec "$0/horde-bridge.sh" --home "$home" run "$@"
"""


def way_to_take(project: Path = PROJECT) -> str:
    """The command that takes the newest release, of a worker that does not run."""
    is_clone = (project / ".git").exists()
    return f"{INSTALLER} --self" if is_clone else "pip install --upgrade dreamer-worker"


class _Tries(BaseModel):
    """Of taking one release, which the worker drained for."""

    model_config = ConfigDict(frozen=True)

    version: str
    count: int
    latest: float
    """In seconds since 1970."""

    def is_too_early(self, now: float) -> bool:
        pause = min(FIRST_PAUSE * 2 ** min(self.count - 1, 10), MOST_PAUSE)
        return 0 <= now - self.latest < pause


def updates_of(config: BridgeConfig, home: Path) -> Updates:
    """Of the releases that the project's page tells of."""
    documents = ModelsFolder.of(config, home).documents
    return Updates(config, home, lambda: news(config, documents))


class Updates:
    """`newest` is a newer release, or None; it raises DocumentMissing."""

    def __init__(
        self,
        config: BridgeConfig,
        home: Path,
        newest: Callable[[], Release | None],
        project: Path = PROJECT,
    ):
        self._config = config
        self._home = home
        self._state = home / STATE
        self._newest = newest
        self._project = project
        self._tried = JsonFile(
            self._state / TRIED, TypeAdapter(_Tries), "what is known of updates", write_whole
        )
        self._told = ""  # why the release can't be taken yet
        self.taken = ""  # the version for which the worker drains

    @property
    def is_wanted(self) -> bool:
        return self._config.now.auto_update == "drain"

    @property
    def is_possible(self) -> bool:
        """Only a clone can take one, on systems with its scripts."""
        return os.name != "nt" and (self._project / ".git").exists()

    @contextmanager
    def watched(self) -> Generator[None]:
        """While this lasts, it is looked for a newer release now and then."""
        if not self.is_possible:
            if self.is_wanted:
                log.warning("auto_update: drain does nothing here, since this is not a git clone")
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
        pause, after_failures = FIRST_SECONDS, Backoff(FIRST_SECONDS, LOOK_SECONDS)
        while not self.taken and not over.wait(pause):
            if not self.is_wanted:  # its owner may want it from now on
                pause = FIRST_SECONDS
                continue
            pause = after_failures.delay()
            with suppress(DocumentMissing, OSError):
                if self.look():
                    after_failures.reset()
                    pause = LOOK_SECONDS

    def look(self) -> bool:
        """Drain for a release that can be taken, but not against another order of the owner's.

        False where it is worth to look again soon. Raises DocumentMissing and OSError.
        """
        if Orders(self._state).is_given(Order.pause, *OF_ONE_LIFE):
            return True
        newer = self._newest()
        if newer is None:
            return True
        before, now = self._tries_of(newer.version), time.time()
        if before.is_too_early(now) or not self._is_at_hand(newer.version):
            return False
        self._drain_for(newer.version, before.count + 1)
        log.info("draining for the release %s, as auto_update says", newer.version)
        return True

    def take(self) -> None:
        """Drain for the newest release as its owner orders, whatever auto_update says; a pause goes
        on afterwards. It is fetched first, which takes seconds.

        Raises UsageError with what is in the way, DocumentMissing and OSError.
        """
        if not self.is_possible:
            raise UsageError(
                f"this is not a git clone, so it can't be taken from here: {way_to_take()}"
            )
        newer = self._newest()
        if newer is None:
            raise UsageError("there is no newer release")
        if not self._is_at_hand(newer.version):
            raise UsageError(f"the release {newer.version} can't be taken: {self._told}")
        self._drain_for(newer.version, self._tries_of(newer.version).count + 1)
        log.info("draining for the release %s, as its owner orders", newer.version)

    def _drain_for(self, version: str, tries: int) -> None:
        # Before it is tried: this version may never come back.
        self._tried.write(_Tries(version=version, count=tries, latest=time.time()))
        orders = Orders(self._state)
        before = orders.given() if orders.is_given(Order.pause) else None
        orders.give(Given(order=Order.drain, after=before))
        self.taken = version

    def _tries_of(self, version: str) -> _Tries:
        tries = self._tried.read()
        return (
            tries
            if tries and tries.version == version
            else _Tries(version=version, count=0, latest=0)
        )

    def _is_at_hand(self, version: str) -> bool:
        """Fetch it while the worker serves; why it can't be taken is told once."""
        script = self._project / "update-runtime.sh"
        done = subprocess.run(
            [script, "--self", "--look", "--home", self._home],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        lines = done.stderr.strip().splitlines() or [""]
        told = lines[-1].removeprefix("error: ") if done.returncode else ""
        if told not in ("", self._told):
            log.warning("the release %s is not taken, and tried again later: %s", version, told)
        self._told = told
        return not done.returncode

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
