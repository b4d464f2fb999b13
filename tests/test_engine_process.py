"""The engine as a child process: real processes, really killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from hordelib import Engine
from hordelib.errors import EngineError, ModelMissing
from hordelib.families import SD1
from hordelib.model import Model
from tests.looks import difference
from tests.owner import PROJECT
from tests.test_engine import SMALL
from worker.engine_process import EngineProcess, Patience
from worker.messages import EngineSettings

LONG = replace(SMALL, steps=300)


def settings(folder: Path, comfyui: Path | None = None) -> EngineSettings:
    return EngineSettings(comfyui, "auto", 256 << 20, None, folder / "engine.log")


@pytest.fixture(scope="module")
def child(tmp_path_factory: pytest.TempPathFactory) -> Generator[EngineProcess]:
    process = EngineProcess(settings(tmp_path_factory.mktemp("engine")), Patience(heartbeat=3))
    process.start()
    yield process
    process.stop()


@pytest.fixture
def running(child: EngineProcess) -> EngineProcess:
    """The child, started again where the test before has ended it."""
    if not child.is_alive:
        child.start()
    return child


def test_the_child_makes_the_picture_that_the_engine_makes(
    running: EngineProcess, engine: Engine, checkpoint: Path
):
    steps: list[int] = []
    theirs = running.generate(
        SMALL, Model.of_checkpoint(checkpoint), lambda done, _total: steps.append(done)
    )
    assert difference(theirs.images[0], engine.generate(SMALL, checkpoint).images[0]) == 0
    assert steps == list(range(1, SMALL.steps + 1))


def test_a_failed_job_is_told_and_the_child_goes_on(
    running: EngineProcess, checkpoint: Path, tmp_path: Path
):
    pid = running.pid
    with pytest.raises(ModelMissing, match="nothing"):
        running.generate(
            SMALL, Model("nothing", SD1, {"checkpoint": tmp_path / "nothing.safetensors"})
        )
    assert running.generate(replace(SMALL, steps=1), Model.of_checkpoint(checkpoint)).images
    assert running.pid == pid


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_killed_child_is_noticed_at_once_and_replaced(
    running: EngineProcess, checkpoint: Path, number: signal.Signals
):
    killed_at: list[float] = []

    def kill(done: int, _total: int) -> None:
        if done == 2:
            assert running.pid is not None
            os.kill(running.pid, number)
            killed_at.append(time.monotonic())

    with pytest.raises(EngineError, match=number.name):
        running.generate(LONG, Model.of_checkpoint(checkpoint), kill)
    assert time.monotonic() - killed_at[0] < 2
    running.start()
    assert running.generate(replace(SMALL, steps=1), Model.of_checkpoint(checkpoint)).images


def test_a_frozen_child_is_killed_after_its_missed_heartbeats(
    running: EngineProcess, checkpoint: Path
):
    pid = running.pid
    assert pid is not None

    def freeze(done: int, _total: int) -> None:
        if done == 2:
            os.kill(pid, signal.SIGSTOP)

    with pytest.raises(EngineError, match="hung"):
        running.generate(LONG, Model.of_checkpoint(checkpoint), freeze)
    assert not psutil.pid_exists(pid)


def test_a_child_that_cannot_start_says_why(tmp_path: Path):
    process = EngineProcess(settings(tmp_path, comfyui=tmp_path / "nowhere"))
    with pytest.raises(EngineError, match=r"ComfyUI is not in .*nowhere.*engine\.log"):
        process.start()
    assert not process.is_alive


def test_the_child_ends_when_its_bridge_is_killed(tmp_path: Path):
    script = (
        "from pathlib import Path\n"
        "from tests.test_engine_process import settings\n"
        "from worker.engine_process import EngineProcess\n"
        "if __name__ == '__main__':\n"
        f"    process = EngineProcess(settings(Path({str(tmp_path)!r})))\n"
        "    process.start()\n"
        "    print(process.pid, flush=True)\n"
        "    input()\n"
    )
    (tmp_path / "bridge.py").write_text(script, "utf-8")
    with subprocess.Popen(
        [sys.executable, str(tmp_path / "bridge.py")],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as bridge:
        assert bridge.stdout is not None
        child = psutil.Process(int(bridge.stdout.readline()))
        bridge.kill()
    psutil.wait_procs([child], timeout=5)
    assert not child.is_running()
