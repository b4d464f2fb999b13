"""The calls of the kinds of work beside pictures, over HTTP."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from worker.sandbox import sources
from worker.sandbox.faults import Endpoint
from worker.sandbox.horde import Horde
from worker.sandbox.kinds.alchemy_wire import FormPopBody, FormSubmitBody, InterrogateBody
from worker.sandbox.kinds.text_wire import TextAskBody, TextPopBody, TextSubmitBody
from worker.sandbox.replies import Json, Links
from worker.sandbox.wire import parse

KeyOf = Callable[[web.Request], str]
LinksOf = Callable[[web.Request], Links]
Route = tuple[str, str, Endpoint, Callable[[web.Request], Awaitable[web.Response]]]


class KindRoutes:
    """`popped` makes the answer to a pop, and keeps what was handed out."""

    def __init__(
        self,
        horde: Horde,
        key_of: KeyOf,
        links_of: LinksOf,
        popped: Callable[[Endpoint, Json], web.Response],
    ):
        self._horde = horde
        self._key_of = key_of
        self._links_of = links_of
        self._popped = popped

    def rows(self, api: str) -> tuple[Route, ...]:
        form, text = f"{api}/interrogate", f"{api}/generate/text"
        return (
            ("POST", f"{form}/async", Endpoint.FORM_ASYNC, self._interrogate),
            ("GET", f"{form}/status/{{id}}", Endpoint.FORM_STATUS, self._form_status),
            ("DELETE", f"{form}/status/{{id}}", Endpoint.FORM_CANCEL, self._cancel_forms),
            ("POST", f"{form}/pop", Endpoint.FORM_POP, self._pop_forms),
            ("POST", f"{form}/submit", Endpoint.FORM_SUBMIT, self._submit_form),
            ("POST", f"{text}/async", Endpoint.TEXT_ASYNC, self._ask_text),
            ("GET", f"{text}/status/{{id}}", Endpoint.TEXT_STATUS, self._text_status),
            ("DELETE", f"{text}/status/{{id}}", Endpoint.TEXT_CANCEL, self._cancel_text),
            ("POST", f"{text}/pop", Endpoint.TEXT_POP, self._pop_texts),
            ("POST", f"{text}/submit", Endpoint.TEXT_SUBMIT, self._submit_text),
        )

    async def _interrogate(self, request: web.Request) -> web.Response:
        body = parse(InterrogateBody, await request.read())
        key = self._key_of(request)
        source = await sources.load_for_forms(body)
        return web.json_response(self._horde.interrogate(key, body, source), status=202)

    async def _form_status(self, request: web.Request) -> web.Response:
        id, links = request.match_info["id"], self._links_of(request)
        return web.json_response(self._horde.form_status(id, links))

    async def _cancel_forms(self, request: web.Request) -> web.Response:
        id, links = request.match_info["id"], self._links_of(request)
        return web.json_response(self._horde.cancel_forms(id, links))

    async def _pop_forms(self, request: web.Request) -> web.Response:
        body = parse(FormPopBody, await request.read())
        reply = self._horde.pop_forms(self._key_of(request), body, self._links_of(request))
        return self._popped(Endpoint.FORM_POP, reply)

    async def _submit_form(self, request: web.Request) -> web.Response:
        body = parse(FormSubmitBody, await request.read())
        return web.json_response(self._horde.submit_form(self._key_of(request), body))

    async def _ask_text(self, request: web.Request) -> web.Response:
        body, key = parse(TextAskBody, await request.read()), self._key_of(request)
        reply = self._horde.with_texts(lambda texts, now: texts.ask(key, body, now))
        return web.json_response(reply, status=202)

    async def _text_status(self, request: web.Request) -> web.Response:
        id = request.match_info["id"]
        return web.json_response(self._horde.with_texts(lambda texts, _: texts.status(id)))

    async def _cancel_text(self, request: web.Request) -> web.Response:
        id = request.match_info["id"]
        return web.json_response(self._horde.with_texts(lambda texts, _: texts.cancel(id)))

    async def _pop_texts(self, request: web.Request) -> web.Response:
        body, key = parse(TextPopBody, await request.read()), self._key_of(request)
        reply = self._horde.pop_texts(key, body)
        return self._popped(Endpoint.TEXT_POP, reply)

    async def _submit_text(self, request: web.Request) -> web.Response:
        body, key = parse(TextSubmitBody, await request.read()), self._key_of(request)
        reply = self._horde.with_texts(lambda texts, now: texts.submit(key, body, now))
        return web.json_response(reply)
