"""The child process that does the forms which need no device: one after the other, on the CPU.

A hostile picture can at worst end this process, which is replaced; pictures and their judge live
elsewhere.
"""

from __future__ import annotations

import logging
import sys
from multiprocessing.connection import Connection

from hordelib.alchemy.plain_forms import PLAIN_FORMS
from worker.children.child_side import Child, set_up_process
from worker.children.judge_main import keep_out_of_the_way
from worker.children.messages import Answered, FormsSettings, Ready, Solve, Unanswered

HEARTBEAT_SECONDS = 5.0
MOST_BYTES = 6 << 30  # of address space: a picture of 16 million pixels takes a tenth of it

log = logging.getLogger(__name__)


def main(pipe: Connection, settings: FormsSettings) -> None:
    """The spawned process: exits when told to stop, or when the bridge is gone."""
    set_up_process(settings.log_file)
    keep_out_of_the_way()
    _limit_memory()
    child = Child(pipe, HEARTBEAT_SECONDS)
    child.report(Ready(", ".join(PLAIN_FORMS)))
    for command in child.commands():
        child.report(_answer(command))
    child.leave()


def _limit_memory() -> None:
    """Windows knows no such limit."""
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))


def _answer(asked: Solve) -> Answered | Unanswered:
    """Whatever goes wrong with a form is said about that form."""
    try:
        return Answered(asked.number, PLAIN_FORMS[asked.form](asked.image))
    except Exception as error:
        log.warning("form %d, %s: no result", asked.number, asked.form, exc_info=True)
        return Unanswered(asked.number, f"{type(error).__name__}: {error}")
