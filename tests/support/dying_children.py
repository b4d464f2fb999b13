"""Children of a worker that don't live: what they need is imported within a moment."""

from __future__ import annotations

import os
import time
from multiprocessing.connection import Connection

from worker.children.child_side import Child, set_up_process
from worker.children.messages import EngineSettings, Generate, JudgeSettings, Ready

LIVES = 2  # of an engine, before it starts no more


def dies_twice_and_stays_dead(pipe: Connection, settings: EngineSettings) -> None:
    """An engine that takes its time and then dies of any job."""
    lives = settings.log_file.with_name("lives")
    lived = len(lives.read_text()) if lives.exists() else 0
    if lived == LIVES:
        os._exit(1)
    lives.write_text("x" * (lived + 1))
    child = Child(pipe)
    child.report(Ready("a device"))
    for command in child.commands():
        if isinstance(command, Generate):
            time.sleep(1)
            os._exit(1)


def start_only_once(pipe: Connection, settings: JudgeSettings) -> None:
    """A judge that dies of its first picture."""
    set_up_process(settings.log_file)
    child, mark = Child(pipe), settings.models / "started"
    if mark.exists():
        os._exit(1)
    mark.touch()
    child.report(Ready("nobody"))
    for _ in child.commands():
        os._exit(1)


def never_ready(_pipe: Connection, settings: JudgeSettings) -> None:
    """A judge that takes longer to start than anybody waits."""
    set_up_process(settings.log_file)
    time.sleep(600)
