"""HTTP to the owner's text server. Whatever it answers, a call ends in bounded time and memory.

CantServeNow
├── ServerGone     it can't be reached, broke off, or answers as no text server does
└── ServerBusy     it has no room at the moment

JobError
└── TextRefused    it does not want this very text
    ├── PromptTooLong
    └── NoSuchCall
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from threading import Event
from typing import Any, TypeVar

from pydantic import TypeAdapter

from hordelib.errors import JobError
from worker.clock import elapsed_seconds
from worker.config.keys import BridgeConfig
from worker.config.values import CLIENT_AGENT
from worker.errors import CantServeNow
from worker.net.call import Http
from worker.net.messages import AnswerTooLong, HttpAnswer, HttpFailed, HttpRequest
from worker.net.untrusted import one_line, read_json, reason_of

CONNECT_SECONDS, FACT_SECONDS = 5.0, 10.0
MOST_BYTES = 4 << 20  # of an answer that comes as one
MOST_STREAMED_BYTES = 16 << 20
_MOST_EVENT_BYTES = 1 << 20
_MOST_PARTS = 50_000  # values of an answer
_EXCERPT_BYTES = 2 << 10
_BUSY = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
_TOO_LONG = ("context", "max_seq_len")  # words of servers that refuse a prompt for its length
_NOT_THERE = (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED)

Read = TypeVar("Read")
Body = Mapping[str, Any]


class ServerGone(CantServeNow):
    """Other texts would fail, too."""


class ServerBusy(CantServeNow):
    """The same may work a little later."""


class TextRefused(JobError):
    """Another text may well work."""


class PromptTooLong(TextRefused):
    """It is longer than the server's context, which does not shorten it itself."""


class NoSuchCall(TextRefused):
    """A server of this kind has no such address."""


def connection_of(config: BridgeConfig, unwanted: Event) -> Connection:
    """To the text server of a configuration. Raises ValueError where there is none."""
    if config.text_backend is None:
        raise ValueError("there is no text_backend")
    key = config.text_key.get_secret_value() if config.text_key else ""
    return Connection(config.text_backend, key, unwanted)


class Connection:
    """Any thread may use it.

    Args:
        url: the server's origin, as the configuration has it.
        key: a bearer token; "" for none.
        unwanted: once it is set, calls end at once.
    """

    def __init__(self, url: str, key: str, unwanted: Event):
        self.url = url
        self._key = key
        self._unwanted = unwanted
        self._http = Http(CLIENT_AGENT, trust_env=True)

    def close(self) -> None:
        """No call may be under way or follow."""
        self._http.close()

    def fact(self, path: str, shape: TypeAdapter[Read]) -> Read | None:
        """What the server says of itself; None where it has nothing there that can be read.

        Raises ServerGone, and ServerBusy.
        """
        try:
            with self.ask("GET", path, None, elapsed_seconds() + FACT_SECONDS) as answer:
                return read_json(shape, answer.read(MOST_BYTES), _MOST_PARTS)
        except (TextRefused, AnswerTooLong, ValueError):
            return None

    def whole(self, path: str, body: Body, shape: TypeAdapter[Read], until: float) -> Read:
        """An answer that comes as one. Raises ServerGone, ServerBusy and TextRefused."""
        with self.ask("POST", path, body, until) as answer:
            return self.read(answer, shape)

    def read(self, answer: HttpAnswer, shape: TypeAdapter[Read]) -> Read:
        try:
            document = answer.read(MOST_BYTES)
        except AnswerTooLong:
            raise ServerGone(f"{self._told}: an answer of more than {MOST_BYTES} bytes") from None
        try:
            return read_json(shape, document, _MOST_PARTS)
        except ValueError as error:
            came = excerpt(document)
            told = f"{self._told}: no answer of a text server ({reason_of(error)}): {came}"
            raise ServerGone(told) from None

    def events(self, answer: HttpAnswer) -> Iterator[bytes]:
        """The data of each server-sent event (WHATWG's HTML standard, section 9.2)."""
        rest, total = b"", 0
        for chunk in answer.chunks:
            total += len(chunk)
            *lines, rest = (rest + chunk).split(b"\n")
            if total > MOST_STREAMED_BYTES or len(rest) > _MOST_EVENT_BYTES:
                raise ServerGone(f"{self._told}: a stream without an end")
            yield from (line[5:].strip() for line in lines if line.startswith(b"data:"))
        if rest.startswith(b"data:"):
            yield rest[5:].strip()

    @contextmanager
    def ask(
        self, method: str, path: str, body: Body | None, until: float, silence: float | None = None
    ) -> Generator[HttpAnswer]:
        """An answer of less than 300. `until` is of elapsed_seconds(); at most so many seconds of
        silence.

        Raises ServerGone, ServerBusy and TextRefused, also while the body is read.
        """
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        content = None
        if body is not None:
            headers["Content-Type"], content = "application/json", _written(body)
        request = HttpRequest(
            url=self.url + path,
            method=method,
            headers=headers,
            body=content,
            until=until,
            connect_seconds=CONNECT_SECONDS,
            silence_seconds=silence or max(1.0, until - elapsed_seconds()),
            unwanted=self._unwanted,
        )
        try:
            with self._http.ask(request) as answer:
                if answer.status >= HTTPStatus.MULTIPLE_CHOICES:
                    self._refuse(path, answer)
                yield answer
        except HttpFailed as error:
            raise ServerGone(f"{self._told}: {error}") from None

    def _refuse(self, path: str, answer: HttpAnswer) -> None:
        status = answer.status
        told = f"{self._told} answers {path} with {status}"
        came = excerpt(answer.beginning(_EXCERPT_BYTES))
        if status in _BUSY:
            raise ServerBusy(f"{told}: {came}")
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            raise ServerGone(f"{told}: put the key that it wants into text_key")
        if status in _NOT_THERE:
            raise NoSuchCall(f"{told}: {came}")
        if HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR:
            is_too_long = any(word in came.lower() for word in _TOO_LONG)
            raise (PromptTooLong if is_too_long else TextRefused)(f"{told}: {came}")
        raise ServerGone(f"{told}: {came}")

    @property
    def _told(self) -> str:
        return f"the text server at {self.url}"


def _written(body: Body) -> bytes:
    """Raises TextRefused for what no JSON can hold."""
    try:
        return json.dumps(body, allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        raise TextRefused(f"a request that can't be written: {error}") from None


def excerpt(document: bytes) -> str:
    """The beginning of what a server says, in quotes, which keep it out of reports and of the
    history: a client's prompt may be in it."""
    text = " ".join(document[:_EXCERPT_BYTES].decode("utf-8", "replace").split())
    told = one_line(text, 200).replace('"', "'")
    return f'"{told}"'
