"""What strangers send, as it is read: texts that are safe to show, and JSON of bounded cost.

Types of answers are made of these, so that nobody who prints a field has to think of it.
"""

from __future__ import annotations

import re
from typing import Annotated, TypeVar

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from hordelib.texts import harmless

LONGEST_NAME = 255  # characters, as of a file's name
_LONGEST_REMARK = 500
_LONGEST_URL = 8192
MOST_PARTS = 300_000  # of a site's JSON document; parsing them takes about 0.1 s and 40 MB
_PART_BEGINS = (b",", b"[", b"{")
_MOST_MENDED = 1000  # lone surrogates in a document
_LONE_SURROGATE = re.compile(
    rb"((?:[^\\]++|\\u[dD][89abAB][\da-fA-F]{2}\\u[dD][c-fC-F][\da-fA-F]{2}"
    rb"|\\(?!u[dD][89a-fA-F]).)*+)\\u[dD][89a-fA-F][\da-fA-F]{2}",
    re.DOTALL,
)
# One that never ends goes to the end of the document: looked for from each quotation mark in it
# again, its end would take a time that grows with the square.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+["\\]?', re.DOTALL)

Read = TypeVar("Read")


def one_line(text: str, longest: int = _LONGEST_REMARK) -> str:
    """The text on one line of at most `longest` characters.

    Control characters, line breaks and marks that turn the direction of writing become spaces.
    """
    cut = text if len(text) <= longest else f"{text[: longest - 1]}…"
    return "".join(letter if letter.isprintable() else " " for letter in cut).strip()


def _name(text: str) -> str:
    return harmless(text[:LONGEST_NAME])


def _label(text: str) -> str:
    return one_line(text, LONGEST_NAME)


# What is compared or sent back stays as it is but for what does harm; the others are only shown.
Name = Annotated[str, AfterValidator(_name)]
Label = Annotated[str, AfterValidator(_label)]
Remark = Annotated[str, AfterValidator(one_line)]

# What goes back to whoever sent it can't be changed, so it is refused where it is not safe to show.
Id = Annotated[str, Field(pattern=r"^[!-~]{1,100}$")]
Link = Annotated[str, Field(max_length=_LONGEST_URL)]

# JSON's numbers have no end. These are larger than any that is meant.
Number = Annotated[float, Field(allow_inf_nan=False, ge=-1e15, le=1e15)]
Count = Annotated[int, Field(ge=-(10**18), le=10**18)]


def read_json(shape: TypeAdapter[Read], document: bytes, most_parts: int = MOST_PARTS) -> Read:
    """A document as a type. Its depth is pydantic's to limit (200).

    Halves of surrogate pairs, which are no letters, become question marks: pydantic refuses all of
    a document for one of them, and whoever wrote it into a prompt would cost us the whole answer.
    Raises ValueError: pydantic's ValidationError, or before anything is parsed where the document
    has more than `most_parts` values.
    """
    if _has_more_parts(document, most_parts):
        raise ValueError(f"more than {most_parts} values")
    try:
        return shape.validate_json(document)
    except ValidationError:
        mended = _without_lone_surrogates(document)
        if mended is document:
            raise
    return shape.validate_json(mended)


def _without_lone_surrogates(document: bytes) -> bytes:
    """Each step goes on where the last one ended, so the time grows with the document's length."""
    parts: list[bytes] = []
    at = 0
    while len(parts) < 2 * _MOST_MENDED and (found := _LONE_SURROGATE.match(document, at)):
        parts += [found[1], b"?"]
        at = found.end()
    return b"".join([*parts, document[at:]]) if parts else document


def _has_more_parts(document: bytes, most: int) -> bool:
    """Each value stands first in a list or an object, or after a comma."""
    if sum(map(document.count, _PART_BEGINS)) < most:
        return False
    # They may be part of a text. Of quotation marks, only those that are not escaped are counted:
    # one or two of each text, which may be a value or a key.
    if document.count(b'"') - document.count(b'\\"') > 4 * most:
        return True
    return sum(map(_STRING.sub(b"", document).count, _PART_BEGINS)) >= most


def reason_of(error: Exception) -> str:
    """What is wrong with a document, and where: its first error, without what stands there."""
    if not isinstance(error, ValidationError):
        return one_line(" ".join(str(error).split()))
    first = error.errors(include_url=False, include_input=False)[0]
    where = one_line(".".join(map(str, first["loc"])), 100)
    return f"{where}: {one_line(first['msg'])}" if where else one_line(first["msg"])
