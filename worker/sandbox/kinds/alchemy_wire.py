"""Request bodies of alchemy, with the limits that the server's schema has."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from worker.sandbox.wire import Body, ControlType, Given, PostProcessor

PlainForm = Literal[
    "caption", "interrogation", "nsfw", "vectorize", "palette", "describe", "aesthetic"
]
FormName = Literal[PlainForm, "annotation", PostProcessor]

POST_PROCESSORS: frozenset[str] = frozenset(get_args(PostProcessor))
IMAGE_RESULTS: frozenset[str] = POST_PROCESSORS | {"annotation"}
"""Forms whose result is a picture that the worker uploads."""


class AskedForm(Body):
    name: FormName
    payload: Given[dict[str, Any]] = None


class InterrogateBody(Body):
    """What a client asks for: some forms over one picture, which is base64 or an address."""

    source_image: str
    forms: tuple[AskedForm, ...] = ()
    slow_workers: bool = True
    trusted_workers: bool = False


class FormPopBody(Body):
    name: str
    forms: tuple[FormName, ...]
    annotation_types: tuple[ControlType, ...] = ()
    amount: int = 1
    threads: Annotated[int, Field(ge=1, le=100)] = 1
    max_tiles: Annotated[int, Field(ge=1, le=256)] = 80
    bridge_agent: str = "unknown:0:unknown"
    priority_usernames: tuple[str, ...] = ()


class FormSubmitBody(Body):
    """`result` is required and must be an object, but null passes the schema: see `submit`."""

    id: str
    result: dict[str, Any] | None
    state: str = "ok"
