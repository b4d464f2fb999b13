"""A text takes as long as its server needs at the speed that was measured, and never longer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from threading import Event

import pytest
from aiohttp import web
from pydantic import TypeAdapter

from tests.support.bounds import bounded
from tests.support.scribe_stage import Stage, until
from tests.support.text_servers import KoboldServer, pieces, streamed, told
from worker.clock import elapsed_seconds
from worker.horde.texts import TEXT_SECONDS
from worker.scribe.connection import Connection, ServerGone
from worker.scribe.order import TextOrder, read_order
from worker.scribe.speed import LEAST_LENGTH, START_SECONDS, TextSpeed
from worker.scribe.text_server import TextServer, found_out
from worker.scribe.writing import Writing

SHORT_SECONDS, LONG_SECONDS = 1.0, 120.0


class Desk:
    """A text server, and what has texts written there."""

    def __init__(self, server: KoboldServer, speed: TextSpeed):
        self.connection = Connection(server.url, "", Event())
        self._writing = Writing(self.connection, speed)
        self._known = found_out(self.connection, "auto", None)

    def write(self, prompt: str, seconds: float) -> str:
        order: TextOrder = read_order({"prompt": prompt, "max_length": 80})
        server: TextServer = self._known
        return self._writing.write(server, order, "an id", elapsed_seconds() + seconds)


@pytest.fixture
def streaming() -> Iterator[KoboldServer]:
    with KoboldServer() as server:
        yield server


@pytest.fixture
def silent() -> Iterator[KoboldServer]:
    """Its texts come as one, at their end."""
    with KoboldServer(streams=False) as server:
        yield server


async def dripping(request: web.Request) -> web.StreamResponse:
    """A word, and another, and never the last one."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    while True:
        await response.write(b'data: {"token": " drip", "finish_reason": null}\n\n')
        await asyncio.sleep(0.05)


async def dripping_bytes(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    while True:
        await response.write(b" ")
        await asyncio.sleep(0.05)


async def saying_nothing(request: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


@pytest.mark.parametrize("answer", [dripping, dripping_bytes, saying_nothing])
def test_a_server_that_drips_is_given_up_in_time_and_the_next_text_is_written(
    streaming: KoboldServer, answer: object
) -> None:
    desk = Desk(streaming, TextSpeed())
    streaming.instead = answer  # pyright: ignore[reportAttributeAccessIssue]
    began = time.monotonic()
    with pytest.raises(ServerGone):
        desk.write("one", SHORT_SECONDS)
    assert time.monotonic() - began < LONG_SECONDS / 2
    assert streaming.aborted == ["HORDEREQ_an id"], "and the server is told to stop"
    streaming.instead = None
    assert desk.write("two", LONG_SECONDS) == told("two")


def test_a_fact_that_drips_is_waited_for_no_longer_than_its_time(silent: KoboldServer) -> None:
    desk = Desk(silent, TextSpeed())
    silent.instead = dripping_bytes
    end = elapsed_seconds() + SHORT_SECONDS
    with pytest.raises(ServerGone):
        desk.connection.whole("/api/v1/generate", {"prompt": ""}, TypeAdapter(dict[str, str]), end)


def test_a_text_that_is_seen_at_its_end_alone_gets_three_times_its_measured_time(
    silent: KoboldServer,
) -> None:
    speed = TextSpeed(start_seconds=0)
    desk = Desk(silent, speed)
    speed.learn(1600, 1.0)
    assert speed.most_seconds(80) == pytest.approx(3 * 80 / 1600)
    silent.instead = saying_nothing
    began = time.monotonic()
    with pytest.raises(ServerGone):
        desk.write("one", 2 * LONG_SECONDS)
    assert time.monotonic() - began < LONG_SECONDS, "far less than the horde's time"


def test_the_speed_is_the_median_of_the_latest_texts_and_short_ones_say_nothing() -> None:
    speed = TextSpeed()
    assert speed.tokens_per_second is None
    assert speed.most_seconds(80) == TEXT_SECONDS, "nothing is known"
    assert speed.longest(512) == 512
    speed.learn(LEAST_LENGTH - 1, 1.0)
    assert speed.tokens_per_second is None
    for seconds in (100.0, 10.0, 10.0, 10.0, 1.0):
        speed.learn(20, seconds)
    assert speed.tokens_per_second == 2.0
    assert speed.most_seconds(80) == START_SECONDS + 3 * 40
    assert speed.longest(512) == 2 * (TEXT_SECONDS - START_SECONDS)
    for _ in range(8):
        speed.learn(20, 2000.0)
    assert speed.longest(512) == LEAST_LENGTH


def test_texts_that_would_take_too_long_are_not_offered(stage: Stage) -> None:
    async def slow(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(1.5)  # less than 34 tokens a second
        return await streamed(request, *pieces(whole))

    whole = 50 * " word"
    with KoboldServer(instead=slow) as server:
        id = stage.ask("slow")
        stage.serve(server.url, max_length=4096)
        assert stage.result(id) == whole
        page = "workers/name/a scribe"
        until(lambda: stage.client.call("GET", page).json()["max_length"] < 4096)


def test_a_text_of_many_stop_sequences_is_searched_once(streaming: KoboldServer) -> None:
    """128 of them, which end alike, in a text of a hundred thousand pieces."""
    order = read_order(
        {"prompt": "", "max_length": 4096, "stop_sequence": [f"{n}end" for n in range(128)]}
    )
    text = ""
    with bounded(seconds=15):
        for _ in range(100_000):
            known = len(text)
            text += "x"
            assert order.end_in(text, known) is None
    assert order.end_in(text + "77e") is None
    assert order.end_in(text + "77end", len(text) + 3) == len(text) + 5
