"""What can be added to this installation from the page: its packages, and the files they need."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import invalidate_caches
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hordelib.safety.csam import is_installed as has_safety_packages
from worker.command_line import INSTALL_NOTIFY, as_typed
from worker.config.keys import BridgeConfig
from worker.errors import UsageError
from worker.net.untrusted import one_line
from worker.safety.policy import COSTS, missing, remedy

log = logging.getLogger(__name__)

PROJECT = Path(__file__).resolve().parents[2]  # the clone, whose set-up is run
LONGEST_LINE = 200  # characters of what a command says
Command = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Extra:
    """`lack` says what is missing, "" for nothing; `commands` bring it, one after the other."""

    name: str
    words: str
    lack: Callable[[], str]
    commands: Callable[[], Sequence[Command]]
    by_hand: Callable[[], str]
    """What the owner types where none of the commands can be run from here."""


class Extras:
    """Any thread may use it. One is installed at a time, by processes that take no job's time."""

    def __init__(self, config: BridgeConfig, home: Path):
        models = config.models_folder(home)
        self._project = PROJECT
        self._changing = threading.Lock()
        self._at_work = ""
        self._line = ""
        self._ended = 0
        self._problems: dict[str, str] = {}
        self._fetch = (sys.executable, "-P", "-m", "worker", "--home", str(home), "fetch")
        self._extras = {
            extra.name: extra
            for extra in (
                Extra(
                    "horde_safety",
                    "The horde's own checker for images of child abuse (CSAM), which the AI Horde"
                    f" expects of every worker. It takes {COSTS}.",
                    lambda: missing(models),
                    self._safety_commands,
                    lambda: as_typed(remedy()),
                ),
                Extra(
                    "apprise",
                    "Sends the notices that notify asks for. It takes 2 MB.",
                    lambda: "" if find_spec("apprise") else "it is not installed",
                    lambda: [self._set_up("--notify")],
                    lambda: as_typed(INSTALL_NOTIFY),
                ),
            )
        }

    def shown(self) -> list[dict[str, Any]]:
        """Each, with what it lacks; reads files whose content is not known."""
        return [
            {
                "name": extra.name,
                "words": extra.words,
                "is_here": not extra.lack(),
                "by_hand": "" if self._can_install(extra) else extra.by_hand(),
                "problem": self._problems.get(extra.name, ""),
            }
            for extra in self._extras.values()
        ]

    def can_install(self, name: str) -> bool:
        """Whether `install` would try it."""
        return self._can_install(self._extras[name])

    @property
    def progress(self) -> dict[str, str | int]:
        """The name of what is being installed, "" for nothing, the last that was said of it, and
        how many have ended."""
        return {"name": self._at_work, "line": self._line, "ended": self._ended}

    def install(self, name: str) -> None:
        """Begin with it. Raises UsageError where that can't be."""
        extra = self._extras.get(name)
        if extra is None:
            raise UsageError(f"{name[:100]!r} can't be installed here")
        if not self._can_install(extra):
            raise UsageError(f"{name} can't be installed from the page here: {extra.by_hand()}")
        with self._changing:
            if self._at_work:
                raise UsageError(f"{self._at_work} is being installed; wait until it is done")
            self._at_work, self._line = name, "it begins"
        self._problems.pop(name, None)
        log.info("page: installing %s", name)
        threading.Thread(target=self._install, args=(extra,), name="extras", daemon=True).start()

    def _install(self, extra: Extra) -> None:
        try:
            for command in extra.commands():
                if code := self._run(command):
                    self._fail(extra, f"{self._line} (exit code {code})")
                    return
            invalidate_caches()  # packages may have come that this process has looked for
            if lack := extra.lack():
                self._fail(extra, lack)
                return
            log.info("page: %s is installed", extra.name)
        except OSError as error:
            self._fail(extra, str(error))
        finally:
            self._at_work, self._ended = "", self._ended + 1

    def _fail(self, extra: Extra, why: str) -> None:
        self._problems[extra.name] = as_typed(why)
        log.warning("page: %s could not be installed: %s", extra.name, why)

    def _run(self, command: Command) -> int:
        """Its exit code; what it says is kept as `progress`, line by line."""
        with subprocess.Popen(
            command,
            cwd=self._project,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # Ctrl-C is for the worker
            errors="replace",
            env={**os.environ, "PYTHONPATH": str(self._project)},
        ) as running:
            assert running.stdout is not None
            for line in running.stdout:
                self._line = one_line(line, LONGEST_LINE) or self._line
        return running.returncode

    def _safety_commands(self) -> Sequence[Command]:
        weights = (*self._fetch, "--safety")
        if has_safety_packages():
            return [weights]
        return [self._set_up("--safety", "--no-weights"), weights]

    def _set_up(self, *options: str) -> Command:
        script = "update-runtime.cmd" if sys.platform == "win32" else "update-runtime.sh"
        return (str(self._project / script), *options)

    def _can_install(self, extra: Extra) -> bool:
        """Files alone come anywhere; packages need a clone, whose set-up knows them."""
        return all(Path(command[0]).is_file() for command in extra.commands())
