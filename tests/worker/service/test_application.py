"""The application on a terminal, by its keys and at its sizes."""

from __future__ import annotations

import asyncio
import logging
import os
import pty
import signal
import subprocess
import sys
import termios
from contextlib import suppress
from pathlib import Path
from typing import cast

import pytest
from rich.text import Text
from textual.widgets import DataTable, RichLog, Static

from hordelib.job.params import GenerationParams
from tests.support.owner import PROJECT, wait_for
from worker.clock import elapsed_seconds
from worker.horde.api import slots_of
from worker.jobs.journal import Journal
from worker.jobs.ledger import Ledger
from worker.jobs.results import ImageEnd, JobStage
from worker.line.devices.device_state import DeviceState
from worker.service.application import Hands, LogLines, Moment, WorkerApplication
from worker.service.machine import CardReading, MachineReading, Room
from worker.service.overview import KindOverview, overview_of

PROMPT = "a red circle"
GIB = 1 << 30
MACHINE = MachineReading(
    memory=Room(total_bytes=8 * GIB, free_bytes=3 * GIB, reserve_bytes=GIB),
    disk=Room(total_bytes=500 * GIB, free_bytes=120 * GIB, reserve_bytes=2 * GIB),
    cards=(
        CardReading(
            uuid="GPU-0",
            name="a card",
            memory=Room(total_bytes=12 * GIB, free_bytes=5 * GIB, reserve_bytes=GIB),
            load_percent=97,
            celsius=71,
            watts=212.4,
        ),
    ),
)
STRANGE = "[bold]日本\u3000\x1b[2J :warning: [/x"


class Owner:
    """Who presses the keys: what each of them has asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.lines = LogLines()
        hands = Hands(*(lambda key=key: self.asked.append(key) for key in "prdq"))
        self.application = WorkerApplication(hands, self.lines)
        self.journal = Journal(Ledger(None))

    def job(self, name: str, model: str) -> None:
        params = GenerationParams(prompt=PROMPT, width=512, height=768, steps=20)
        self.journal.popped(slots_of((name,), ("",), elapsed_seconds() + 60), model)
        self.journal.understood(name, params, 1.0)
        self.journal.move(name, JobStage.running)
        self.journal.stepped(name, 5, 20)

    def show(self, why: str = "") -> None:
        view = self.journal.view()
        overview = overview_of(view, "serving", why, began=0.0, models=("demo", STRANGE))
        forms = KindOverview(kind="form", name="an alchemist", in_hand=2, done=7, kudos=9.5)
        self.application.show(Moment(overview.beside([forms]), view, MACHINE))

    def show_two_cards(self) -> None:
        overview = overview_of(self.journal.view(), "serving", "", began=0.0, models=())
        devices = (
            DeviceState("left", "0", "GPU-0", "working", model="demo"),
            DeviceState("right", "1", "GPU-1", "paused", why="right has 90 °C"),
        )
        moment = Moment(overview.beside([], devices), self.journal.view(), MACHINE)
        self.application.show(moment)

    def told(self, name: str) -> str:
        return str(self.application.screen_stack[0].query_one(name, Static).render())

    def rows(self) -> list[str]:
        found = self.application.screen_stack[0].query_one("#jobs")
        table = cast(DataTable[Text], found)
        return [" ".join(map(str, table.get_row_at(n))) for n in range(table.row_count)]

    def log(self) -> str:
        log = self.application.screen_stack[0].query_one(RichLog)
        return "\n".join(strip.text for strip in log.lines)


def _record(level: int, text: str) -> logging.LogRecord:
    return logging.LogRecord("worker", level, "", 0, "%s", (text,), None)


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60)])
def test_it_shows_state_jobs_memory_and_log(size: tuple[int, int]):
    async def look() -> None:
        owner = Owner()
        async with owner.application.run_test(size=size) as pilot:
            owner.job("a-long-job-id", "demo")
            owner.job("another-job", STRANGE)
            owner.journal.ended("another-job", "another-job", ImageEnd(JobStage.submitted, 12.5))
            owner.lines.emit(_record(logging.WARNING, STRANGE))
            owner.show("back at [/5pm]")
            await pilot.pause(0.5)
            assert owner.told("#state") == "The worker is serving: back at [/5pm]"
            assert "12.50 kudos" in owner.told("#figures")
            figures = owner.told("#figures")
            assert "forms: 2 in hand, 7 done, 9.50 kudos" in figures
            assert "memory 3.0 of 8.0 GiB free   disk 120.0 of 500.0 GiB free" in figures
            card = "5.0 of 12.0 GiB free   load 97 %   temperature 71 °C   power 212 W"
            assert f"card memory {card}" in figures
            first, second = owner.rows()
            assert first.startswith("a-long-j demo 512x768 running 5/20")
            assert "submitted" in second
            assert "12.50" in second
            assert "WARNING [bold]日本" in owner.log()
            owner.show_two_cards()
            await pilot.pause(0.1)
            left, right = owner.told("#figures").splitlines()[-2:]
            assert left.startswith("left: working on demo   card memory 5.0 of 12.0 GiB free")
            assert right == "right: paused: right has 90 °C"
            assert PROMPT not in "".join(owner.rows())
            parts = owner.application.screen_stack[0].query("#state, #figures, #jobs, #log")
            assert all(part.region.height >= 1 for part in parts)
            assert all(part.region.bottom <= size[1] for part in parts)

    asyncio.run(look())


def test_each_key_does_what_the_help_says():
    async def look() -> None:
        owner = Owner()
        async with owner.application.run_test(size=(80, 24)) as pilot:
            owner.show()
            await pilot.press("p", "r", "d", "q", "ctrl+c")
            assert owner.asked == ["p", "r", "d", "q", "q"]
            for key in ("m", "question_mark"):
                await pilot.press(key)
                assert len(owner.application.screen_stack) == 2
                await pilot.press("escape")
                assert len(owner.application.screen_stack) == 1
            await pilot.press("question_mark")
            await pilot.click(offset=(5, 5))
            assert len(owner.application.screen_stack) == 1

    asyncio.run(look())


def test_the_log_is_of_the_level_that_was_chosen():
    async def look() -> None:
        owner = Owner()
        async with owner.application.run_test(size=(100, 30)) as pilot:
            for level in (logging.INFO, logging.WARNING, logging.ERROR):
                owner.lines.emit(_record(level, f"line {level}"))
            await pilot.pause(0.5)
            seen = [[n for n in (20, 30, 40) if f"line {n}" in owner.log()]]
            for _ in range(3):
                await pilot.press("l")
                await pilot.pause()
                seen.append([n for n in (20, 30, 40) if f"line {n}" in owner.log()])
        assert seen == [[20, 30, 40], [30, 40], [40], [20, 30, 40]]

    asyncio.run(look())


def test_a_terminal_that_is_too_small_is_told_so_and_may_grow():
    async def look() -> None:
        owner = Owner()
        async with owner.application.run_test(size=(100, 30)) as pilot:
            owner.show()
            await pilot.resize_terminal(60, 20)
            await pilot.pause()
            assert "60 x 20" in owner.told("#small")
            assert owner.application.screen_stack[0].query_one("#small").region.height > 0
            await pilot.resize_terminal(80, 24)
            await pilot.pause()
            assert owner.application.screen_stack[0].query_one("#small").region.height == 0

    asyncio.run(look())


SHOW = """
import multiprocessing
import sys
from pathlib import Path
from worker.children.signals import StopSignals
from worker.jobs.journal import Journal
from worker.jobs.ledger import Ledger
from worker.service.application_view import ApplicationView, Shown, has_whole_terminal
from worker.config.keys import BridgeConfig
from worker.service.machine import Machine
from worker.service.orders import Orders
from worker.service.pauses import Pauses

if __name__ == "__main__":
    signals = StopSignals.caught()
    assert has_whole_terminal()
    pauses = Pauses(Orders(Path(".")))
    config = BridgeConfig.model_validate({"api_key": "a-key", "dreamer_name": "tester"})
    machine, journal = Machine(config, Path("."), 0), Journal(Ledger(None))
    shown = Shown(journal, pauses, signals, tuple, machine)
    with signals.counted(), ApplicationView(shown) as view:
        context = multiprocessing.get_context("spawn")
        child = context.Process(target=print, args=("from a child",))
        child.start()
        child.join()
        assert child.exitcode == 0
        print("all is well")
        while not signals.count:
            view.refresh()
            view.nap(signals, 1.0)
        if sys.argv[1] == "raise":
            raise RuntimeError("on purpose")
"""
END_OF_SCREEN = b"\x1b[?1049l"  # back from the alternate screen, as xterm names it


@pytest.mark.parametrize("way", ["SIGTERM", "SIGHUP", "key", "raise"])
def test_the_terminal_is_left_as_it_was(way: str, tmp_path: Path):
    (tmp_path / "show.py").write_text(SHOW, "utf-8")
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (30, 100))
    before = termios.tcgetattr(theirs)
    env = {**os.environ, "PYTHONPATH": str(PROJECT), "TERM": "xterm-256color"}
    command = [sys.executable, "-P", "show.py", way]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=env, stdin=theirs, stdout=theirs, stderr=theirs
    )
    drawn = b""
    while b"all is well" not in drawn:  # in its log
        drawn += os.read(ours, 1 << 16)
    assert termios.tcgetattr(theirs) != before
    if way == "key":
        os.write(ours, b"q")
    else:
        process.send_signal(getattr(signal, way, signal.SIGTERM))
    while END_OF_SCREEN not in drawn:
        drawn += os.read(ours, 1 << 16)
    os.set_blocking(ours, False)
    assert process.wait(30) == (1 if way == "raise" else 0)
    assert termios.tcgetattr(theirs) == before
    os.close(ours)
    os.close(theirs)


BUSY_SHOW = SHOW.replace(
    "        while not signals.count:\n"
    "            view.refresh()\n"
    "            view.nap(signals, 1.0)\n",
    "        for number in range(80):\n"
    "            print(f'line {number}')\n"
    "            view.refresh()\n"
    "            view.nap(signals, 0.02)\n"
    "        Path('served').touch()\n",
)


@pytest.mark.parametrize("is_gone", [True, False], ids=["gone", "stopped"])
def test_a_terminal_that_takes_nothing_any_more_holds_up_nothing(is_gone: bool, tmp_path: Path):
    """Nobody reads it, as after Ctrl-S, or its window is closed; there is no signal of it."""
    (tmp_path / "show.py").write_text(BUSY_SHOW, "utf-8")
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (30, 100))
    env = {**os.environ, "PYTHONPATH": str(PROJECT), "TERM": "xterm-256color"}
    command = [sys.executable, "-P", "show.py", "serve"]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=env, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    with process:
        try:
            drawn = b""
            while b"all is well" not in drawn:
                drawn += os.read(ours, 1 << 16)
            if is_gone:
                os.close(ours)
            wait_for(lambda: (tmp_path / "served").exists())
            if not is_gone:
                with suppress(OSError):  # the end of its process is the end of the terminal
                    while os.read(ours, 1 << 16):
                        pass
                os.close(ours)
            assert process.wait(60) == 0
        finally:
            process.kill()
