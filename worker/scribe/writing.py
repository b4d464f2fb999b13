"""One text, written by the owner's server, piece by piece where it streams."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from worker.clock import elapsed_seconds
from worker.errors import CantServeNow
from worker.net.messages import HttpAnswer
from worker.scribe.connection import (
    Connection,
    NoSuchCall,
    PromptTooLong,
    ServerGone,
    TextRefused,
    excerpt,
)
from worker.scribe.mapping import completions_body, genkey, kobold_body
from worker.scribe.order import TextOrder
from worker.scribe.speed import TextSpeed
from worker.scribe.text_server import Software, TextServer

STALLED_SECONDS = 60.0  # without a word, once some have come
_ABORT_SECONDS = 5.0
_KOBOLD, _KOBOLD_STREAM = "/api/v1/generate", "/api/extra/generate/stream"
_COMPLETIONS = "/v1/completions"
_CHARACTERS_PER_TOKEN = 4  # where nobody counts them: the horde's own guess


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


class _Token(_Part):
    token: str = ""
    finish_reason: str | None = None


class _Choice(_Part):
    text: str = ""
    finish_reason: str | None = None


class _Choices(_Part):
    choices: list[_Choice] = Field(default=[], max_length=100)
    error: Any = None


class _Text(_Part):
    text: str


class _Results(_Part):
    results: list[_Text] = Field(min_length=1, max_length=100)


_TOKEN, _CHOICES, _RESULTS = TypeAdapter(_Token), TypeAdapter(_Choices), TypeAdapter(_Results)
_ANYTHING = TypeAdapter(Any)


@dataclass(frozen=True, slots=True)
class _Piece:
    text: str
    is_last: bool


class Writing:
    """Any thread may write.

    Raises, from `write`: ServerGone, ServerBusy, and TextRefused.
    """

    def __init__(self, connection: Connection, speed: TextSpeed):
        self._connection = connection
        self._speed = speed

    def write(self, server: TextServer, order: TextOrder, id: str, until: float) -> str:
        """The text, formatted as its client wants it, or what makes it fail within its time.

        A text that streams is waited for until `until` (elapsed_seconds()), while something comes;
        another one only for as long as texts of its length take.
        """
        began = elapsed_seconds()
        if server.api == "openai":
            pieces = self._fitting_completion(server, order, until)
        elif server.software is Software.koboldcpp:
            pieces = self._kobold_stream(server, order, id, until)
        else:
            by_speed = began + self._speed.most_seconds(order.max_length)
            pieces = self._kobold(server, order, id, min(until, by_speed))
        text, tokens = self._gathered(pieces, order, until)
        self._speed.learn(tokens, elapsed_seconds() - began)
        return order.formatted(text)

    def _gathered(
        self, pieces: Generator[_Piece], order: TextOrder, until: float
    ) -> tuple[str, int]:
        text, count, is_whole = "", 0, False
        try:
            for piece in pieces:
                known = len(text)
                text += piece.text
                count += bool(piece.text)
                is_whole = piece.is_last or order.end_in(text, known) is not None
                if len(text) > order.most_characters:
                    told = f"more than the {order.max_length} tokens that were asked for"
                    raise ServerGone(f"the text server at {self._connection.url} writes {told}")
                if is_whole:
                    break
                if elapsed_seconds() > until:
                    raise ServerGone(f"too slow: {count} tokens within the horde's time")
        finally:
            pieces.close()
        if not is_whole:
            raise ServerGone(f"the text server at {self._connection.url} broke off a text")
        guess = len(text) // _CHARACTERS_PER_TOKEN
        return text, min(order.max_length, count if count > 1 else guess)

    def _kobold(
        self, server: TextServer, order: TextOrder, id: str, until: float
    ) -> Generator[_Piece]:
        body = kobold_body(order, server.software, id)
        told = self._connection.whole(_KOBOLD, body, _RESULTS, until)
        yield _Piece(told.results[0].text, is_last=True)

    def _kobold_stream(
        self, server: TextServer, order: TextOrder, id: str, until: float
    ) -> Generator[_Piece]:
        body = kobold_body(order, server.software, id)
        is_over = False
        try:
            with self._streamed(_KOBOLD_STREAM, body, until) as answer:
                if _is_stream(answer):
                    for event in self._connection.events(answer):
                        token = self._event(_TOKEN, event)
                        is_over = token.finish_reason is not None
                        yield _Piece(token.token, is_over)
                else:
                    told = self._connection.read(answer, _RESULTS)
                    yield _Piece(told.results[0].text, is_last=True)
        finally:
            if not is_over:
                self._abort(id)

    def _fitting_completion(
        self, server: TextServer, order: TextOrder, until: float
    ) -> Generator[_Piece]:
        """With as much of the prompt's end as the server has room for."""
        for shorter in order.with_less_prompt():
            try:
                yield from self._completion(server, order, until)
                return
            except PromptTooLong:
                order = shorter
        yield from self._completion(server, order, until)

    def _completion(self, server: TextServer, order: TextOrder, until: float) -> Generator[_Piece]:
        """To hang up is what ends a text there that nobody wants any more."""
        body = completions_body(order, server.software, server.model)
        with self._streamed(_COMPLETIONS, body, until) as answer:
            if _is_stream(answer):
                for event in self._connection.events(answer):
                    yield self._choice(event)
            else:
                told = self._connection.read(answer, _CHOICES)
                yield _Piece(_first(told).text, is_last=True)

    def _choice(self, event: bytes) -> _Piece:
        if event == b"[DONE]":
            return _Piece("", is_last=True)
        told = self._event(_CHOICES, event)
        if told.error is not None:
            why = excerpt(json.dumps(told.error).encode())
            raise TextRefused(f"the text server breaks a text off: {why}")
        choice = _first(told) if told.choices else _Choice()  # the last event may only count
        return _Piece(choice.text, choice.finish_reason is not None)

    @contextmanager
    def _streamed(self, path: str, body: dict[str, Any], until: float) -> Generator[HttpAnswer]:
        """Silence is the prompt's until the first text of this server has been seen."""
        left = until - elapsed_seconds()
        is_known = self._speed.tokens_per_second is not None
        silence = min(left, STALLED_SECONDS) if is_known else left
        with self._connection.ask("POST", path, body, until, max(1.0, silence)) as answer:
            yield answer

    def _event(self, shape: TypeAdapter[Any], event: bytes) -> Any:
        try:
            return shape.validate_json(event)
        except ValidationError:
            told = f"the text server at {self._connection.url} streams what is no text"
            raise ServerGone(f"{told}: {excerpt(event)}") from None

    def _abort(self, id: str) -> None:
        """Have the server stop a text that nobody wants any more."""
        until = elapsed_seconds() + _ABORT_SECONDS
        with suppress(CantServeNow, TextRefused, NoSuchCall):
            self._connection.whole("/api/extra/abort", {"genkey": genkey(id)}, _ANYTHING, until)


def _is_stream(answer: HttpAnswer) -> bool:
    return answer.headers.get("Content-Type", "").startswith("text/event-stream")


def _first(told: _Choices) -> _Choice:
    if not told.choices:
        raise ServerGone("the text server answers without a text")
    return told.choices[0]
