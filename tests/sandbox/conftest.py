"""One sandbox per test, with a clock that stands still, and a caller for each kind of key."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.sandbox_client import (
    CLIENT_KEY,
    MODELS,
    NEWBIE_KEY,
    WORKER_KEY,
    Api,
    MovableClock,
)
from worker.sandbox import Sandbox


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


@pytest.fixture
def sandbox(clock: MovableClock) -> Iterator[Sandbox]:
    with Sandbox(MODELS, clock=clock) as running:
        yield running


def api(sandbox: Sandbox, key: str | None) -> Iterator[Api]:
    with Api(sandbox.url, key) as one:
        yield one


@pytest.fixture
def client(sandbox: Sandbox) -> Iterator[Api]:
    yield from api(sandbox, CLIENT_KEY)


@pytest.fixture
def worker(sandbox: Sandbox) -> Iterator[Api]:
    yield from api(sandbox, WORKER_KEY)


@pytest.fixture
def newbie(sandbox: Sandbox) -> Iterator[Api]:
    yield from api(sandbox, NEWBIE_KEY)


@pytest.fixture
def stranger(sandbox: Sandbox) -> Iterator[Api]:
    yield from api(sandbox, "no-such-key")
