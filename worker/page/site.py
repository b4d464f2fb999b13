"""What every page of ours begins with: the guard, the login, and files without a build step."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any

from aiohttp import web

from worker.page.guard import MOST_BODY_BYTES, Guard

_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
_LOGIN_FILES = ("page.css", "login.js")


def make_site(guard: Guard, index: str, names: Iterable[str]) -> web.Application:
    """An application with `index` as its front page, and these files beside it."""
    app = web.Application(middlewares=[_plain(guard)], client_max_size=MOST_BODY_BYTES)
    app.add_routes(
        [
            web.get("/", _static(index)),
            web.get("/login", _static("login.html")),
            *(web.get(f"/{name}", _static(name)) for name in (*_LOGIN_FILES, *names)),
            web.post("/login", guard.log_in),
            web.post("/logout", guard.log_out),
        ]
    )
    return app


def _plain(guard: Guard) -> Any:
    @web.middleware
    async def middleware(request: web.Request, handler: Any) -> web.StreamResponse:
        return await guard.middleware(request, handler)

    return middleware


def _static(name: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    content = files("worker.page").joinpath("static", name).read_bytes()

    async def give(_request: web.Request) -> web.Response:
        kind = _TYPES[Path(name).suffix]
        return web.Response(body=content, content_type=kind, charset="utf-8")

    return give
