"""How the owner runs this program, for remedies that can be typed as they are told."""

from __future__ import annotations

import re
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from shlex import quote

LAUNCHER = "./horde-bridge.sh"
INSTALLER = "./update-runtime.sh"
INSTALL_SAFETY = f"{INSTALLER} --safety"
INSTALL_NOTIFY = f"{INSTALLER} --notify"
FETCH_SAFETY = f"{LAUNCHER} fetch --safety"


def as_typed(told: str, argv: Sequence[str] | None = None) -> str:
    """A text with what runs this program, for the folder it was run for, in LAUNCHER's place.

    The launcher knows one folder, its own. `argv` is sys.argv by default.
    """
    started, *options = sys.argv if argv is None else argv
    parser = ArgumentParser(add_help=False)
    parser.add_argument("--home", default="")
    home = str(parser.parse_known_args(options)[0].home)
    if (Path(home) / LAUNCHER).is_file():
        return _for_windows(told) if sys.platform == "win32" else told
    is_installed = Path(started).name == "dreamer"
    program = "dreamer" if is_installed else f"{quote(sys.executable)} -m worker"
    command = f"{program} --home {quote(home)}" if home else program
    install = "pip install '.[safety]' where its source is" if is_installed else INSTALL_SAFETY
    told = told.replace(INSTALL_SAFETY, f"{install}, then {FETCH_SAFETY}")
    if is_installed:
        told = told.replace(INSTALL_NOTIFY, "pip install apprise")
        told = told.replace(INSTALLER, "pip install --upgrade . where its source is")
    return told.replace(LAUNCHER, command)


def _for_windows(told: str) -> str:
    """The scripts that a console there runs."""
    return re.sub(r"\./(horde-bridge|update-runtime)\.sh", r"\1.cmd", told)
