"""A text that is to be written, read from the horde's payload, and what has to be done to it after.

The prompt goes to the server as it came, placeholders such as {{[INPUT]}} included.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hordelib.errors import InvalidParams

LONGEST_TEXT = 16384  # tokens that any server of the horde hands out
_CHARACTERS_PER_TOKEN = 64  # a bound: tokens of spaces and of code have a dozen
_MORE_CHARACTERS = 4096
_LONG_TOKEN, _CUTS = 6, 7  # characters a token of a prompt that has few tokens; how often it is cut
_LONGEST_PROMPT = 16 << 20  # characters
_SENTENCE_ENDS = (".", "!", "?", "*", '"', ")", "}", "`", "]", ";", "…")
_SPECIAL = re.compile(r"[#/@%{}+=~|\\^<>]")


class _Fields(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True)

    prompt: Annotated[str, Field(max_length=_LONGEST_PROMPT)]
    max_length: Annotated[int, Field(ge=1, le=LONGEST_TEXT)] = 80
    max_context_length: Annotated[int, Field(ge=1, le=1 << 24)] = 2048
    stop_sequence: Annotated[list[str], Field(max_length=1000)] = []
    singleline: bool = False
    frmttriminc: bool = False
    frmtrmblln: bool = False
    frmtrmspch: bool = False


@dataclass(frozen=True, slots=True)
class TextOrder:
    """`payload` has every key that the horde gave; lengths are in tokens."""

    payload: Mapping[str, Any]
    prompt: str
    max_length: int
    max_context_length: int
    stops: tuple[str, ...]
    is_single_line: bool
    trims_sentence: bool
    drops_blank_lines: bool
    drops_special: bool

    @property
    def room(self) -> int:
        """Tokens of the prompt that its client wants to be read; they may be less than none."""
        return self.max_context_length - self.max_length

    def with_less_prompt(self) -> Iterator[TextOrder]:
        """The same with shorter and shorter prompts, which begin later: as text servers of the
        horde shorten what is longer than their context. The last has a character a token."""
        length = _LONG_TOKEN * max(1, self.room)
        for _ in range(_CUTS):
            if length < len(self.prompt):
                yield replace(self, prompt=self.prompt[-length:])
            length = max(1, length * 3 // 4)

    @property
    def most_characters(self) -> int:
        """No server that keeps to `max_length` writes more."""
        return self.max_length * _CHARACTERS_PER_TOKEN + _MORE_CHARACTERS

    def end_in(self, text: str, known: int = 0) -> int | None:
        """Where the text ends that its client wants: behind the first stop sequence, which the
        horde promises to be in it, or before the second line. None: it may go on.

        There is no end within the first `known` characters, which are not searched again.
        """
        begins = {stop: max(0, known - len(stop) + 1) for stop in self.stops}
        places = ((stop, text.find(stop, begin)) for stop, begin in begins.items())
        found = [at + len(stop) for stop, at in places if at >= 0]
        if self.is_single_line and (at := text.find("\n", known)) >= 0:
            found.append(at)
        return min(found, default=None)

    def formatted(self, text: str) -> str:
        """As its client wants it. NULs, which no database of a horde takes, are left out."""
        text = text[: self.end_in(text)].replace("\0", "")
        text = text.encode("utf-8", "replace").decode("utf-8")  # halves of surrogate pairs
        if self.drops_blank_lines:
            text = re.sub(r"\n{2,}", "\n", text)
        if self.drops_special:
            text = _SPECIAL.sub("", text)
        return _to_whole_sentence(text) if self.trims_sentence else text


def read_order(payload: Mapping[str, Any]) -> TextOrder:
    """Raises InvalidParams, with the field."""
    try:
        read = _Fields.model_validate(dict(payload))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = str(first["loc"][0]) if first["loc"] else "payload"
        raise InvalidParams(field, None, first["msg"]) from None
    return TextOrder(
        payload=payload,
        prompt=read.prompt,
        max_length=read.max_length,
        max_context_length=read.max_context_length,
        stops=tuple(stop for stop in read.stop_sequence if stop),
        is_single_line=read.singleline,
        trims_sentence=read.frmttriminc,
        drops_blank_lines=read.frmtrmblln,
        drops_special=read.frmtrmspch,
    )


def _to_whole_sentence(text: str) -> str:
    """Without a sentence that was begun; all of it where there is no end of one."""
    end = max(text.rfind(mark) for mark in _SENTENCE_ENDS) + 1
    return text[:end] if end else text
