"""What every request has to pass before anything else looks at it, and what every answer carries.

Without a password the page is for this machine's browser alone, and only by a name that means this
machine: a web site whose name was pointed at 127.0.0.1 (DNS rebinding) is turned away. With a
password, everybody has to give it, from this machine, too: behind a proxy all look like this
machine.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from aiohttp import web
from pydantic import TypeAdapter, ValidationError

from worker.config.values import is_loopback
from worker.page.access import Sessions, Tries, fits

log = logging.getLogger(__name__)

COOKIE = "dreamer_session"
MOST_BODY_BYTES = 64 << 10
LONGEST_PASSWORD = 1000  # characters
CHANGES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
OPEN_PATHS = frozenset({"/login", "/login.js", "/page.css"})  # to whom has not logged in
PROXY_HEADERS = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP", "Via")
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
        " connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}
_OBJECT = TypeAdapter(dict[str, object])
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def refusal(status: int, *told: str, headers: dict[str, str] | None = None) -> web.Response:
    """Lines for who asked, as JSON."""
    return web.json_response({"problems": told}, status=status, headers=headers)


@dataclass
class Guard:
    """`password_hash` "": there is no password. Lives in the page's loop alone."""

    password_hash: str
    sessions: Sessions = field(default_factory=Sessions)
    tries: Tries = field(default_factory=Tries)
    _one_at_a_time: asyncio.Lock = field(default_factory=asyncio.Lock)

    def take_password(self, password_hash: str) -> None:
        """From now on this one counts; whoever gave an earlier one is logged out."""
        if password_hash != self.password_hash:
            self.password_hash, self.sessions = password_hash, Sessions()

    def is_in(self, request: web.Request) -> bool:
        return not self.password_hash or self.sessions.has(request.cookies.get(COOKIE, ""))

    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        response = self._refused(request)
        if response is None:
            try:
                response = await handler(request)
            except web.HTTPRequestEntityTooLarge:
                response = _too_large()
            except web.HTTPException as error:
                response = refusal(error.status, error.reason)
            except ConnectionError:
                raise
            except Exception:
                log.exception("a bug of ours: the page can't answer %s", request.path)
                response = refusal(500, "the page has met a bug of ours; the log says which")
        if not response.prepared:
            response.headers.update(HEADERS)
            if response.status == 413:
                response.force_close()  # what else comes of that body is not read
        return response

    def _refused(self, request: web.Request) -> web.Response | None:
        """What keeps the request out, None for nothing."""
        if (request.content_length or 0) > MOST_BODY_BYTES:
            return _too_large()
        if not self.password_hash and not is_local(request):
            told = (
                "without page_password the page is for the browser of this machine alone, at"
                " 127.0.0.1 or localhost and without a proxy; set page_password, then restart"
            )
            return refusal(403, told)
        if is_cross_site(request):
            return refusal(403, "another web site has sent this; open the page itself")
        if not self.is_in(request) and request.path not in OPEN_PATHS:
            if request.path == "/":
                return web.Response(status=302, headers={"Location": "/login"})
            return refusal(401, "log in first")
        return None

    async def log_in(self, request: web.Request) -> web.Response:
        """The handler of POST /login."""
        password = (await json_of(request)).get("password")
        if not isinstance(password, str) or len(password) > LONGEST_PASSWORD:
            return refusal(400, "password: expected a text")
        address = request.remote or ""
        if wait_seconds := self.tries.wait_seconds(address):
            minutes = int(wait_seconds // 60) + 1
            told = f"too many wrong passwords: try again in {minutes} min"
            return refusal(429, told, headers={"Retry-After": str(int(wait_seconds) + 1)})
        self.tries.begin(address)
        async with self._one_at_a_time:  # each takes 32 MiB and a core for a moment
            is_right = await asyncio.to_thread(fits, password, self.password_hash)
        if not is_right:
            log.warning("page: a wrong password from %s", address)
            return refusal(403, "that is not the password")
        self.tries.was_right(address)
        response = web.json_response({})
        response.set_cookie(
            COOKIE,
            self.sessions.begin(),
            max_age=30 * 86400,
            httponly=True,
            samesite="Strict",
            secure=request.headers.get("X-Forwarded-Proto") == "https",
            path="/",
        )
        return response

    async def log_out(self, request: web.Request) -> web.Response:
        """The handler of POST /logout."""
        self.sessions.end(request.cookies.get(COOKIE, ""))
        response = web.json_response({})
        response.del_cookie(COOKIE, path="/")
        return response


async def json_of(request: web.Request) -> dict[str, object]:
    """The request's object. Raises HTTPBadRequest and HTTPRequestEntityTooLarge."""
    if request.content_type != "application/json":
        raise web.HTTPBadRequest(reason="expected application/json")
    try:
        return _OBJECT.validate_json(await request.read())
    except ValidationError:
        raise web.HTTPBadRequest(reason="expected a JSON object") from None


def is_local(request: web.Request) -> bool:
    """Whether it comes from this machine, by a name of this machine, and not by a proxy."""
    return (
        is_loopback(request.remote or "")
        and is_loopback(_name_of(request.headers.get("Host", "")))
        and not any(name in request.headers for name in PROXY_HEADERS)
    )


def is_cross_site(request: web.Request) -> bool:
    """Whether a browser sent it for another site. What changes something has to say where it is
    from, in the header that no page can forge."""
    origin = request.headers.get("Origin")
    if request.headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none"):
        is_visit = request.headers.get("Sec-Fetch-Mode") == "navigate" and request.method == "GET"
        return not is_visit
    if origin is None:
        return request.method in CHANGES
    try:
        return urlsplit(origin).netloc != request.headers.get("Host")
    except ValueError:
        return True


def _name_of(host: str) -> str:
    """Without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _too_large() -> web.Response:
    return refusal(413, f"more than {MOST_BODY_BYTES >> 10} KiB is too much")
