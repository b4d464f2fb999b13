"""How long, and from which seed."""

from __future__ import annotations

import pytest

SECONDS_BESIDES = 300


@pytest.fixture
def jobs(pytestconfig: pytest.Config) -> int:
    """How many images are asked for."""
    return _number(pytestconfig, "--jobs")


@pytest.fixture
def seed(pytestconfig: pytest.Config) -> int:
    return _number(pytestconfig, "--seed")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    seconds = SECONDS_BESIDES + _number(config, "--jobs")
    for item in items:
        if item.path.name in ("test_chaos.py", "test_anything.py"):
            item.add_marker(pytest.mark.timeout(seconds))


def _number(config: pytest.Config, option: str) -> int:
    value: object = config.getoption(option)
    assert isinstance(value, int)
    return value
