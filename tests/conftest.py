"""Fixtures: the demo checkpoint, and one real engine for all tests of this process."""

from __future__ import annotations

import gc
import signal
from collections.abc import Generator
from pathlib import Path
from types import FrameType

import pytest
from hypothesis import HealthCheck, settings

from hordelib import Engine, demo_checkpoint
from tests.support.owner import PROJECT, Home, make_home
from tests.support.sandbox_client import MODELS
from worker.children.signals import STOP_SIGNALS
from worker.devices import first_card
from worker.sandbox import Sandbox

# A machine may be busy: how long an example takes says nothing of what it is about.
settings.register_profile("dreamer", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("dreamer")

# Files that take minutes. They run first, so that none is left for one process alone at the end.
LONGEST = frozenset(
    f"test_{name}.py"
    for name in (
        *("bridge", "chaos", "main", "launcher", "lives", "models_command", "under_attack"),
        *("engine", "sharing", "comfy", "damaged_models", "runtime", "bad_jobs", "types"),
        *("samplers", "anything", "full_disk", "wheel", "sd1_on_4_gib", "whole_worker"),
        *("large_families", "sdxl_job_after_job", "demo_with_numbers", "compare", "control"),
    )
)

SHOWN = "shown"  # a test's property that is told at the end of the run, also by another process


@pytest.fixture(scope="session")
def models() -> Path:
    """The project's own models folder, so that the demo checkpoint is built once a clone."""
    return PROJECT / "models"


@pytest.fixture(scope="session")
def checkpoint(models: Path) -> Path:
    return demo_checkpoint(models)


@pytest.fixture(scope="session")
def engine() -> Generator[Engine]:
    with Engine() as engine:
        engine.start()
        gc.freeze()  # as its child process does: no model that goes has all of ComfyUI looked at
        yield engine


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("chaos", "what tests/chaos does to a worker")
    group.addoption("--jobs", type=int, default=300, help="images that are asked for (300)")
    group.addoption("--seed", type=int, default=0, help="what all is drawn from (0)")
    parser.addoption("--bad-jobs", type=int, default=60, help="jobs of test_bad_jobs.py (60)")
    card_jobs = "mixed jobs on a simulated card (4); with 10 and more Cascade runs there, too"
    parser.addoption("--card-jobs", type=int, default=4, help=card_jobs)
    parser.addoption("--soak-jobs", type=int, default=30, help="jobs of the memory soak (30)")


@pytest.fixture
def home(tmp_path: Path, checkpoint: Path) -> Home:
    return make_home(tmp_path, checkpoint)


@pytest.fixture
def horde() -> Generator[Sandbox]:
    with Sandbox(MODELS, limits={}) as sandbox:
        yield sandbox


def pytest_configure() -> None:
    """Undo what the shell has children inherit: a process started with nohup ignores the end of
    its terminal, one in the background Ctrl-C, and a parent may have blocked signals altogether.

    A handler of ours is reset to the default in every program that a test starts, while this
    process itself stays as deaf as it was asked to be.
    """
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in STOP_SIGNALS:
        if signal.getsignal(number) is signal.SIG_IGN:
            deaf = signal.default_int_handler if number == signal.SIGINT else _unheard
            signal.signal(number, deaf)


def _unheard(_number: int, _frame: FrameType | None) -> None:
    """Does nothing, as if the signal were ignored."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONGEST)
    if first_card() is None:
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="no NVIDIA card in this machine"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            for name, text in report.user_properties:
                if name == SHOWN:
                    terminalreporter.section(report.nodeid.partition("::")[2])
                    terminalreporter.write_line(text)
