"""The sandbox over HTTP: routes, headers and injected faults. Rules live in `horde`."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from threading import Lock
from types import MappingProxyType
from typing import Any

from aiohttp import web

from worker.sandbox import sources
from worker.sandbox.books import Tally
from worker.sandbox.errors import InvalidInput, SandboxError, TooFast
from worker.sandbox.faults import (
    CutShort,
    Disconnect,
    Drip,
    Effect,
    Endpoint,
    Faults,
    HalfHeader,
    HandedOutAgain,
    Html,
    LostReply,
    NamedTwice,
    Part,
    Redirect,
    Reply,
)
from worker.sandbox.horde import Horde
from worker.sandbox.kinds.routes import KindRoutes
from worker.sandbox.limits import RateLimiter
from worker.sandbox.objects import Forbidden
from worker.sandbox.replies import Json, Links
from worker.sandbox.wire import GenerateBody, PopBody, SubmitBody, WorkerBody, parse

MAX_BODY_BYTES = 64 * 1024 * 1024
VERSION = "5.1.5"
_PER_URL = (Endpoint.CHECK, Endpoint.STATUS, Endpoint.FORM_STATUS, Endpoint.TEXT_STATUS)
_POPS = (Endpoint.POP, Endpoint.FORM_POP, Endpoint.TEXT_POP)

Handler = Callable[[web.Request], Awaitable[web.Response]]


class TallyBook:
    """Counts calls and answers. Thread-safe."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._calls: Counter[str] = Counter()
        self._statuses: Counter[tuple[str, int]] = Counter()
        self._rcs: Counter[str] = Counter()

    def called(self, endpoint: Endpoint) -> None:
        with self._lock:
            self._calls[endpoint.value] += 1

    def answered(self, endpoint: Endpoint, status: int) -> None:
        with self._lock:
            self._statuses[endpoint.value, status] += 1

    def refused(self, rc: str) -> None:
        with self._lock:
            self._rcs[rc] += 1

    def copy(self) -> Tally:
        with self._lock:
            return Tally(dict(self._calls), dict(self._statuses), dict(self._rcs))


class App:
    """Answers the v2 API for one horde. `limiter` and the handlers belong to one event loop."""

    def __init__(self, horde: Horde, faults: Faults, limiter: RateLimiter, tally: TallyBook):
        self._horde = horde
        self._faults = faults
        self._limiter = limiter
        self._tally = tally
        self._last_jobs: dict[Endpoint, Json] = {}  # of each kind the last pop's reply that had ids

    def build(self) -> web.Application:
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        for method, path, endpoint, handler in self._routes():
            app.router.add_route(method, path, self._answering(endpoint, handler))
        return app

    def _routes(self) -> tuple[tuple[str, str, Endpoint, Handler], ...]:
        api = "/api/v2"
        return (
            ("POST", f"{api}/generate/async", Endpoint.ASYNC, self._generate),
            ("GET", f"{api}/generate/check/{{id}}", Endpoint.CHECK, self._check),
            ("GET", f"{api}/generate/status/{{id}}", Endpoint.STATUS, self._status),
            ("DELETE", f"{api}/generate/status/{{id}}", Endpoint.CANCEL, self._cancel),
            ("POST", f"{api}/generate/pop", Endpoint.POP, self._pop),
            ("POST", f"{api}/generate/submit", Endpoint.SUBMIT, self._submit),
            *KindRoutes(self._horde, _apikey, self._links, self._popped).rows(api),
            ("GET", f"{api}/status/heartbeat", Endpoint.HEARTBEAT, self._heartbeat),
            ("GET", f"{api}/status/models", Endpoint.MODELS, self._models),
            ("GET", f"{api}/status/models/{{name}}", Endpoint.MODELS, self._models),
            ("GET", f"{api}/status/performance", Endpoint.PERFORMANCE, self._performance),
            ("GET", f"{api}/status/modes", Endpoint.MODES, self._modes),
            ("GET", f"{api}/status/news", Endpoint.NEWS, self._news),
            ("GET", "/api/swagger.json", Endpoint.SWAGGER, self._swagger),
            ("GET", f"{api}/find_user", Endpoint.FIND_USER, self._find_user),
            ("GET", f"{api}/workers", Endpoint.WORKERS, self._workers),
            ("GET", f"{api}/workers/{{id}}", Endpoint.WORKER, self._worker),
            ("GET", f"{api}/workers/name/{{name}}", Endpoint.WORKER, self._worker_named),
            ("PUT", f"{api}/workers/{{id}}", Endpoint.MODIFY_WORKER, self._modify_worker),
            ("GET", f"{api}/teams", Endpoint.TEAMS, self._teams),
            ("PUT", "/transient/{name}", Endpoint.UPLOAD, self._upload),
            ("GET", "/transient/{name}", Endpoint.IMAGE, self._download),
            ("GET", "/sources/{name}", Endpoint.SOURCE, self._download),
        )

    def _answering(
        self, endpoint: Endpoint, handler: Handler
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """The handler with everything that holds for each call around it."""

        async def answer(request: web.Request) -> web.StreamResponse:
            self._tally.called(endpoint)
            seconds, effect = self._faults.draw(endpoint)
            await asyncio.sleep(seconds)
            reply = await _instead_of_work(request, effect)
            is_pop = endpoint in _POPS
            if isinstance(effect, HandedOutAgain) and endpoint in self._last_jobs:
                reply = web.json_response(self._last_jobs[endpoint])
            if reply is None:
                reply = await self._work(endpoint, handler, request)
            if is_pop and isinstance(effect, NamedTwice):
                reply = _naming_twice(reply)
            self._tally.answered(endpoint, reply.status)
            if is_pop and (isinstance(effect, LostReply | CutShort) or _has_left(request)):
                self._horde.lose_pop(_handed_out(json.loads(reply.text or "{}")))
            return await _after_work(request, effect, reply)

        return answer

    async def _work(
        self, endpoint: Endpoint, handler: Handler, request: web.Request
    ) -> web.Response:
        caller = request.path if endpoint in _PER_URL else str(request.remote)
        try:
            headers = self._limiter.admit(endpoint, caller)
            reply = await handler(request)
        except SandboxError as error:
            if error.rc is not None:
                self._tally.refused(error.rc)
            headers = error.headers if isinstance(error, TooFast) else {}
            reply = web.json_response(error.body(), status=error.status)
        reply.headers.update(headers)
        reply.headers["Horde-Node"] = f"{request.host}:{VERSION}"
        return reply

    async def _generate(self, request: web.Request) -> web.Response:
        body = parse(GenerateBody, await request.read())
        key = _apikey(request)
        pictures = await sources.load(body)
        reply = self._horde.generate(key, body, pictures)
        return web.json_response(reply, status=200 if body.dry_run else 202)

    async def _check(self, request: web.Request) -> web.Response:
        return web.json_response(self._horde.check(request.match_info["id"]))

    async def _status(self, request: web.Request) -> web.Response:
        return web.json_response(self._horde.status(request.match_info["id"], self._links(request)))

    async def _cancel(self, request: web.Request) -> web.Response:
        return web.json_response(self._horde.cancel(request.match_info["id"], self._links(request)))

    async def _pop(self, request: web.Request) -> web.Response:
        body = parse(PopBody, await request.read())
        reply = self._horde.pop(_apikey(request), body, self._links(request))
        return self._popped(Endpoint.POP, reply)

    def _popped(self, endpoint: Endpoint, reply: Json) -> web.Response:
        if _handed_out(reply):
            self._last_jobs[endpoint] = reply
        return web.json_response(reply)

    async def _submit(self, request: web.Request) -> web.Response:
        body = parse(SubmitBody, await request.read())
        key = _apikey(request)
        embedded = None
        if body.generation != "R2" and body.state != "faulted":
            embedded = await asyncio.to_thread(sources.embedded_image, body.generation)
        return web.json_response(self._horde.submit(key, body, embedded))

    async def _heartbeat(self, _: web.Request) -> web.Response:
        reply: Json = {"message": "OK", "version": VERSION, "queue": 0, "db_connection": True}
        return web.json_response(reply)

    async def _models(self, request: web.Request) -> web.Response:
        return web.json_response(self._horde.models(request.match_info.get("name")))

    async def _performance(self, _: web.Request) -> web.Response:
        return web.json_response(self._horde.performance())

    async def _modes(self, _: web.Request) -> web.Response:
        return web.json_response(self._horde.modes())

    async def _news(self, _: web.Request) -> web.Response:
        return web.json_response([])

    async def _swagger(self, _: web.Request) -> web.Response:
        return web.json_response(self._horde.swagger())

    async def _find_user(self, request: web.Request) -> web.Response:
        return web.json_response(self._horde.user(_apikey(request)))

    async def _workers(self, request: web.Request) -> web.Response:
        return web.json_response(self._horde.workers(request.headers.get("apikey")))

    async def _worker(self, request: web.Request) -> web.Response:
        key = request.headers.get("apikey")
        return web.json_response(self._horde.worker(request.match_info["id"], key))

    async def _worker_named(self, request: web.Request) -> web.Response:
        name, key = request.match_info["name"], request.headers.get("apikey")
        if "/" in name:  # the server takes such an address apart before it looks for its route
            return web.json_response({"message": "The requested URL was not found."}, status=404)
        return web.json_response(self._horde.worker_named(name, key))

    async def _teams(self, _: web.Request) -> web.Response:
        return web.json_response(self._horde.teams())

    async def _modify_worker(self, request: web.Request) -> web.Response:
        body = parse(WorkerBody, await request.read())
        key, id = _apikey(request), request.match_info["id"]
        return web.json_response(self._horde.modify_worker(key, id, body))

    async def _upload(self, request: web.Request) -> web.Response:
        try:
            self._horde.store.check("PUT", request.path, request.query)
        except Forbidden as refusal:
            return _storage_error(403, str(refusal))
        name = request.match_info["name"]
        data = await request.read()
        self._horde.store.put("transient", name, data, request.content_type)
        return web.Response()

    async def _download(self, request: web.Request) -> web.Response:
        try:
            self._horde.store.check("GET", request.path, request.query)
        except Forbidden as refusal:
            return _storage_error(403, str(refusal))
        bucket, name = request.path.split("/")[1], request.match_info["name"]
        stored = self._horde.store.get(bucket, name)
        if stored is None:
            return _storage_error(404, "NoSuchKey")
        return web.Response(body=stored.data, content_type=stored.content_type)

    def _links(self, request: web.Request) -> Links:
        return Links(self._horde.store, f"{request.scheme}://{request.host}")


def _handed_out(reply: Mapping[str, Any]) -> list[str]:
    """The ids in a pop's reply, of either kind."""
    return [*(reply.get("ids") or ()), *(form["id"] for form in reply.get("forms") or ())]


def _apikey(request: web.Request) -> str:
    if "apikey" not in request.headers:
        raise InvalidInput({"apikey": "Missing required parameter in the HTTP headers"})
    return request.headers["apikey"]


def _storage_error(status: int, code: str) -> web.Response:
    text = f"<?xml version='1.0' encoding='utf-8'?><Error><Code>{code}</Code></Error>"
    return web.Response(status=status, text=text, content_type="application/xml")


async def _instead_of_work(request: web.Request, effect: Effect | None) -> web.Response | None:
    """The reply to a call that an injected fault keeps from being worked on."""
    match effect:
        case Disconnect():
            _hang_up(request)
            return web.Response(status=500)
        case Drip(part, pause_seconds):
            await _drip(request, part, pause_seconds)
            return web.Response(status=500)
        case Reply(status, seconds):
            headers = {} if seconds is None else {"Retry-After": str(seconds)}
            return web.json_response(_error_body(effect), status=status, headers=headers)
        case Redirect(location, status):
            return web.Response(status=status, headers={"Location": location})
        case Html(status):
            page = "<html><body><h1>Bad gateway</h1></body></html>"
            return web.Response(status=status, text=page, content_type="text/html")
        case _:
            return None


def _error_body(reply: Reply) -> Json:
    body = {"message": reply.message, "rc": reply.rc, "errors": reply.errors}
    return {name: value for name, value in body.items() if value is not None}


_DRIP_BYTES = 4096  # of a request: fewer would stand still, for the system reads ahead
_BEGINNING_OF: Mapping[Part, bytes] = MappingProxyType(
    {
        Part.HEADERS: b"HTTP/1.1 200 OK\r\nX-Slow: ",
        Part.BODY: b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n",
    }
)


async def _drip(request: web.Request, part: Part, pause_seconds: float) -> None:
    """Ends when the caller has left."""
    transport = request.transport
    assert transport is not None
    transport.write(_BEGINNING_OF.get(part, b""))
    with suppress(ConnectionError):
        while not transport.is_closing():
            if part is Part.REQUEST:
                await request.content.read(_DRIP_BYTES)
            else:
                transport.write(b" ")
            await asyncio.sleep(pause_seconds)


async def _after_work(
    request: web.Request, effect: Effect | None, reply: web.Response
) -> web.StreamResponse:
    match effect:
        case LostReply():
            _hang_up(request)
        case CutShort():
            return await _cut_short(request, reply)
        case HalfHeader() if request.transport is not None:
            request.transport.write(b"HTTP/1.1 200 OK\r\nContent-Ty")
            request.transport.close()
        case _:
            pass
    return reply


def _naming_twice(reply: web.Response) -> web.Response:
    job = json.loads(reply.text or "{}")
    twice = {name: job[name] * 2 for name in ("ids", "r2_uploads", "forms") if job.get(name)}
    return web.json_response(job | twice, status=reply.status)


async def _cut_short(request: web.Request, reply: web.Response) -> web.StreamResponse:
    whole = reply.body if isinstance(reply.body, bytes) else b""
    partial = web.StreamResponse(status=reply.status, headers={"Content-Type": reply.content_type})
    partial.content_length = len(whole)
    await partial.prepare(request)
    await partial.write(whole[: len(whole) // 2])
    if request.transport is not None:
        # close, not abort: the half that was written must arrive.
        request.transport.close()
    return partial


def _has_left(request: web.Request) -> bool:
    """Whether the caller has closed the connection before it had its answer."""
    return request.transport is None or request.transport.is_closing()


def _hang_up(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()
