"""Fixtures: the demo checkpoint, and one real engine for all tests of this process."""

from __future__ import annotations

import signal
from collections.abc import Generator
from pathlib import Path

import pytest

from hordelib import Engine, demo_checkpoint
from worker.devices import first_card

PROJECT = Path(__file__).parent.parent


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
        yield engine


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak-jobs", type=int, default=30, help="jobs of the memory soak (30)")


def pytest_configure() -> None:
    """A shell starts what runs in its background with Ctrl-C ignored, and children inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if first_card() is None:
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="no NVIDIA card in this machine"))
