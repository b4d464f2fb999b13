"""The stream of events to each open page: one look at the worker a second, whoever many look."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from worker.page.guard import HEADERS, Guard, refusal
from worker.page.log_lines import LogLines

LOOK_SECONDS = 1.0
BEAT_SECONDS = 10.0  # without news, until a page is told that all is well
HISTORY_SECONDS = 60.0
WRITE_SECONDS = 30.0  # for a browser that reads nothing any more
MOST_PAGES = 32  # open at once


@dataclass
class Live:
    """`look` is what is sent, as JSON; it is called in the page's loop, and only while a page is
    open."""

    look: Callable[[], dict[str, Any]]
    lines: LogLines
    guard: Guard
    pages: int = 0
    _text: str = ""
    _looked_at: float = field(default=-LOOK_SECONDS)

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """The handler of GET /events."""
        if self.pages >= MOST_PAGES:
            return refusal(503, f"{MOST_PAGES} pages are open; close one")
        headers = {**HEADERS, "Content-Type": "text/event-stream", "X-Accel-Buffering": "no"}
        response = web.StreamResponse(headers=headers)
        self.pages += 1
        try:
            await response.prepare(request)
            with suppress(ConnectionError, TimeoutError):
                await self._send_all(request, response)
        finally:
            self.pages -= 1
        return response

    async def _send_all(self, request: web.Request, response: web.StreamResponse) -> None:
        sent, line = "", self.lines.count
        history_at = sent_at = time.monotonic()
        while self.guard.is_in(request) and request.transport is not None:  # it is None once closed
            events: list[str] = []
            now = time.monotonic()
            text = self._looked(now)
            if text != sent:
                events.append(_event("now", text))
                sent = text
            if self.lines.count != line:
                new = self.lines.since(line)
                line = self.lines.count
                events.append(_event("log", json.dumps(new)))
            if now - history_at >= HISTORY_SECONDS:
                events.append(_event("history", "{}"))
                history_at = now
            if now - sent_at >= BEAT_SECONDS:
                events.append(_event("beat", "{}"))
            if events:
                sent_at = now
                async with asyncio.timeout(WRITE_SECONDS):
                    await response.write("".join(events).encode())
            await asyncio.sleep(LOOK_SECONDS)

    def _looked(self, now: float) -> str:
        if now - self._looked_at >= LOOK_SECONDS * 0.9:
            self._text, self._looked_at = json.dumps(self.look()), now
        return self._text


def _event(name: str, data: str) -> str:
    return f"event: {name}\ndata: {data}\n\n"
