"""Text servers for tests: stand-ins of KoboldAI's API and of OpenAI's completions, on loopback.

They are written from what is known of these servers' answers. Each text is made from its prompt, so
that a test sees that every client got its own.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from threading import Thread
from typing import Any, Self

from aiohttp import web

Json = dict[str, Any]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def told(prompt: str) -> str:
    """What the stand-ins write."""
    return f" text of {prompt[:40]}, which goes on for a while and has an end."


class _Server:
    """An aiohttp application in a thread of its own, until the context ends."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._over = asyncio.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = Thread(target=self._run, daemon=True)

    def routes(self) -> Mapping[tuple[str, str], Handler]:
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def leave(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._over.set)
            self._thread.join(60)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        app = web.Application(client_max_size=64 << 20)
        for (method, path), handler in self.routes().items():
            app.router.add_route(method, path, handler)
        runner = web.AppRunner(
            app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True
        )
        await runner.setup()
        site = web.SockSite(runner, self._listener)
        await site.start()
        await self._over.wait()
        await site.stop()
        await asyncio.sleep(0.05)  # who came at the last moment is a connection now, to be closed
        for connection in runner.server.connections if runner.server else ():
            if connection.transport is not None:
                connection.transport.abort()
        await runner.cleanup()


@dataclass
class KoboldServer(_Server):
    """KoboldCpp where `streams`, else another server of the API.

    `instead` answers generations in place of the stand-in; it may do what it likes.
    """

    model: str = "koboldcpp/LLaMA2-13B-Tiefighter"
    streams: bool = True
    instead: Handler | None = None
    bodies: list[Json] = field(default_factory=list[Json])
    aborted: list[str] = field(default_factory=list[str])
    idle: int = 1
    is_gone: bool = False

    def __post_init__(self) -> None:
        super().__init__()

    def routes(self) -> Mapping[tuple[str, str], Handler]:
        routes: dict[tuple[str, str], Handler] = {
            ("GET", "/api/v1/model"): self._fact(lambda: {"result": self.model}),
            ("GET", "/api/v1/config/max_length"): self._fact(lambda: {"value": 256}),
            ("GET", "/api/v1/config/max_context_length"): self._fact(lambda: {"value": 4096}),
            ("POST", "/api/v1/generate"): self._generate,
        }
        if self.streams:
            version = {"result": "KoboldCpp", "version": "1.76"}
            routes |= {
                ("GET", "/api/extra/version"): self._fact(lambda: version),
                ("GET", "/api/extra/perf"): self._fact(lambda: {"idle": self.idle, "queue": 0}),
                ("POST", "/api/extra/generate/stream"): self._stream,
                ("POST", "/api/extra/abort"): self._abort,
            }
        return routes

    def _fact(self, value: Callable[[], Json]) -> Handler:
        async def answer(request: web.Request) -> web.Response:
            if self.is_gone and request.transport is not None:
                request.transport.abort()
            return web.json_response(value())

        return answer

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        if self.instead:
            return await self.instead(request)
        return web.json_response({"results": [{"text": told(body["prompt"])}]})

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        if self.instead:
            return await self.instead(request)
        return await streamed(request, *pieces(told(body["prompt"])))

    async def _abort(self, request: web.Request) -> web.Response:
        self.aborted.append((await request.json())["genkey"])
        return web.json_response({"success": "true"})


def pieces(text: str) -> list[Json]:
    """KoboldCpp's events of a text."""
    words = text.split(" ")
    events = [{"token": f" {word}", "finish_reason": None} for word in words if word]
    return [*events, {"token": "", "finish_reason": "stop"}]


async def streamed(request: web.Request, *events: Json, ends: bool = True) -> web.StreamResponse:
    """An answer as server-sent events; without an end, it is broken off."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for event in events:
        await response.write(f"event: message\ndata: {json.dumps(event)}\n\n".encode())
    if not ends and request.transport is not None:
        request.transport.abort()
    return response


@dataclass
class CompletionsServer(_Server):
    """One that speaks as OpenAI's completions; it refuses keys that it does not know."""

    model: str = "mine/model-7B"
    owned_by: str = "vllm"
    known: frozenset[str] = frozenset()
    key: str = ""
    completes: bool = True
    instead: Handler | None = None
    bodies: list[Json] = field(default_factory=list[Json])

    def __post_init__(self) -> None:
        super().__init__()

    def routes(self) -> Mapping[tuple[str, str], Handler]:
        return {
            ("GET", "/v1/models"): self._models,
            ("POST", "/v1/completions"): self._complete,
        }

    async def _models(self, request: web.Request) -> web.Response:
        if self.key and request.headers.get("Authorization") != f"Bearer {self.key}":
            return web.json_response({"error": "no key"}, status=401)
        row = {"id": self.model, "object": "model", "owned_by": self.owned_by}
        return web.json_response({"data": [{**row, "max_model_len": 8192}]})

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        if self.instead:
            return await self.instead(request)
        if not self.completes:
            return web.json_response({"detail": "Not Found"}, status=404)
        if self.known and (unknown := set(body) - self.known):
            return web.json_response({"error": f"unexpected {sorted(unknown)}"}, status=422)
        text = told(body["prompt"])
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for at in range(0, len(text), 8):
            choice = {"index": 0, "text": text[at : at + 8], "finish_reason": None}
            await response.write(f"data: {json.dumps({'choices': [choice]})}\n\n".encode())
        await response.write(b"data: [DONE]\n\n")
        return response
