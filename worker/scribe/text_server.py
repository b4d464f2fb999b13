"""Which text server answers at an address, and with which model: found out by asking it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from threading import Event
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from hordelib.texts import harmless
from worker.config.keys import BridgeConfig
from worker.errors import CantServeNow
from worker.net.untrusted import Label, Name
from worker.scribe.connection import Connection, connection_of

Api = Literal["kobold", "openai"]


class Software(StrEnum):
    """As the horde is told what writes its texts."""

    koboldcpp = "koboldcpp"
    koboldai = "koboldai"
    aphrodite = "aphrodite"
    vllm = "vllm"
    llama_cpp = "llamacpp"
    llama_cpp_python = "llamacpppython"
    tabby = "tabbyapi"
    unknown = "unknown"


# What /v1/models calls who owns a model.
_OWNERS = {
    "vllm": Software.vllm,
    "aphrodite": Software.aphrodite,
    "pygmalionai": Software.aphrodite,
    "llamacpp": Software.llama_cpp,
    "me": Software.llama_cpp_python,
    "tabbyapi": Software.tabby,
}
_NO_MODELS = ("", "readonly", "inactive")  # what KoboldAI's API says while none is loaded
_MOST_MODELS = 10_000
_LEAST_NAME, _LONGEST_NAME = 3, 200


@dataclass(frozen=True, slots=True)
class TextServer:
    """`model` is the server's own name of it, `offered` the horde's; lengths are in tokens, and
    None where the server says nothing."""

    api: Api
    software: Software
    model: str
    offered: str
    max_length: int | None = None
    max_context_length: int | None = None


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


Tokens = Annotated[int, Field(ge=1, le=1 << 24)]


class _Result(_Part):
    result: Name


class _Value(_Part):
    value: Tokens


class _Version(_Part):
    version: Label


class _Model(_Part):
    id: Name
    owned_by: Label = ""
    max_model_len: Tokens | None = None


class _ModelList(_Part):
    data: tuple[_Model, ...] = Field(max_length=_MOST_MODELS)


class _Settings(_Part):
    n_ctx: Tokens


class _Props(_Part):
    default_generation_settings: _Settings


class _TabbyParameters(_Part):
    max_seq_len: Tokens | None = None


class _TabbyModel(_Part):
    id: Name
    parameters: _TabbyParameters | None = None


class _Perf(_Part):
    idle: int = 1
    queue: int = 0


_RESULT, _VALUE, _VERSION = TypeAdapter(_Result), TypeAdapter(_Value), TypeAdapter(_Version)
_MODELS, _PROPS, _TABBY = TypeAdapter(_ModelList), TypeAdapter(_Props), TypeAdapter(_TabbyModel)
_PERF = TypeAdapter(_Perf)


def found_out(connection: Connection, api: str, name: str | None) -> TextServer:
    """What answers there.

    Args:
        api: kobold, openai or auto.
        name: that the horde is told; None for the server's own.

    Raises CantServeNow, with the remedy.
    """
    server = _kobold(connection, name) if api in ("auto", "kobold") else None
    if server is None and api in ("auto", "openai"):
        server = _openai(connection, name)
    if server is None:
        wanted = {"kobold": "KoboldAI's API", "openai": "completions as OpenAI's"}.get(
            api, "either"
        )
        raise CantServeNow(
            f"{connection.url} answers, but not as a text server does that speaks {wanted}: check"
            " text_backend and text_api, and that the server has a model"
        )
    return server


def ask_server(config: BridgeConfig) -> TextServer:
    """What answers at the address of a configuration. Raises CantServeNow, and ValueError where
    there is no address."""
    connection = connection_of(config, Event())
    try:
        return found_out(connection, config.text_api, config.text_model)
    finally:
        connection.close()


def model_of(connection: Connection, server: TextServer) -> str | None:
    """The server's own name of the model that it has now; None where it does not say."""
    if server.api == "kobold":
        told = connection.fact("/api/v1/model", _RESULT)
        return told.result if told else None
    if server.software is Software.tabby:
        loaded = connection.fact("/v1/model", _TABBY)
        return loaded.id if loaded else None
    models = connection.fact("/v1/models", _MODELS)
    ids = [each.id for each in models.data] if models else []
    return server.model if server.model in ids else next(iter(ids), None)


def is_in_use(connection: Connection, server: TextServer) -> bool:
    """Whether it writes for somebody else, as far as it tells."""
    if server.software is not Software.koboldcpp:
        return False
    perf = connection.fact("/api/extra/perf", _PERF)
    return perf is not None and (not perf.idle or perf.queue > 0)


def _kobold(connection: Connection, name: str | None) -> TextServer | None:
    told = connection.fact("/api/v1/model", _RESULT)
    if told is None:
        return None
    if told.result.rpartition("/")[2].lower() in _NO_MODELS:
        raise CantServeNow(f"the text server at {connection.url} has no model: load one")
    length = connection.fact("/api/v1/config/max_length", _VALUE)
    context = connection.fact("/api/v1/config/max_context_length", _VALUE)
    return TextServer(
        "kobold",
        _kobold_software(connection),
        told.result,
        name or _offered(told.result, Software.unknown),
        length.value if length else None,
        context.value if context else None,
    )


def _kobold_software(connection: Connection) -> Software:
    extra = connection.fact("/api/extra/version", _RESULT)
    if extra is not None and extra.result.lower() == Software.koboldcpp:
        return Software.koboldcpp
    has_version = connection.fact("/version", _VERSION) is not None
    return Software.aphrodite if has_version else Software.koboldai


def _openai(connection: Connection, name: str | None) -> TextServer | None:
    models = connection.fact("/v1/models", _MODELS)
    if models is None or not models.data:
        return None
    model = _chosen(models.data, name)
    software = _OWNERS.get(model.owned_by.lower(), Software.unknown)
    own, context = model.id, model.max_model_len
    if context is None and (props := connection.fact("/props", _PROPS)):
        software = Software.llama_cpp if software is Software.unknown else software
        context = props.default_generation_settings.n_ctx
    elif context is None and (loaded := connection.fact("/v1/model", _TABBY)):
        own = loaded.id
        context = loaded.parameters.max_seq_len if loaded.parameters else None
    offered = name or _offered(own, software)
    return TextServer("openai", software, own, offered, None, context)


def _chosen(models: Iterable[_Model], name: str | None) -> _Model:
    """The one that the owner's name ends with, else the first."""
    first, *others = models
    return next((each for each in (first, *others) if name and name.endswith(each.id)), first)


def _offered(own: str, software: Software) -> str:
    """A model's name for the horde, without anything of this machine's folders.

    Aphrodite's models have its name before theirs there.
    """
    own = harmless(own).strip().partition("::")[0]
    if own.startswith(("/", ".", "~")) or "\\" in own or own.endswith(".gguf"):
        own = re.split(r"[/\\]", own)[-1].removesuffix(".gguf")
    offered = f"aphrodite/{own}" if software is Software.aphrodite else own
    if not _LEAST_NAME <= len(offered) <= _LONGEST_NAME:
        raise CantServeNow(f"the text server calls its model {own!r}: set text_model to its name")
    return offered
