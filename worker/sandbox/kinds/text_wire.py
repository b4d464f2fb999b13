"""Request bodies of texts, with the limits that the server's schema has."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from worker.sandbox.wire import Body, Given, ModelName

Length = Annotated[int, Field(ge=16, le=4096)]
ContextLength = Annotated[int, Field(ge=80, le=1_048_576)]
Share = Annotated[float, Field(ge=0, le=1)]
SPOKEN_FOR_NOTHING = {
    "min_p": 0.0,
    "smoothing_factor": 0.0,
    "dynatemp_range": 0.0,
    "dynatemp_exponent": 1.0,
}
"""What a worker is told even where the client said nothing of it."""


class TextParams(Body):
    """How to write. What the client leaves out is left out of the worker's payload, too."""

    n: Annotated[int, Field(ge=1, le=20)] = 1
    max_length: Length = 80
    max_context_length: ContextLength = 2048
    temperature: Given[Annotated[float, Field(ge=0, le=5)]] = None
    top_p: Given[Annotated[float, Field(ge=0.001, le=1)]] = None
    top_k: Given[Annotated[int, Field(ge=0, le=200)]] = None
    top_a: Given[Share] = None
    typical: Given[Share] = None
    tfs: Given[Share] = None
    min_p: Given[Share] = None
    rep_pen: Given[Annotated[float, Field(ge=1, le=3)]] = None
    rep_pen_range: Given[Annotated[int, Field(ge=0, le=4096)]] = None
    rep_pen_slope: Given[Annotated[float, Field(ge=0, le=10)]] = None
    sampler_order: Given[list[int]] = None
    stop_sequence: Given[Annotated[list[str], Field(max_length=128)]] = None
    singleline: Given[bool] = None
    frmtadsnsp: Given[bool] = None
    frmtrmblln: Given[bool] = None
    frmtrmspch: Given[bool] = None
    frmttriminc: Given[bool] = None
    use_default_badwordsids: Given[bool] = None
    smoothing_factor: Given[Annotated[float, Field(ge=0, le=10)]] = None
    dynatemp_range: Given[Annotated[float, Field(ge=0, le=5)]] = None
    dynatemp_exponent: Given[Annotated[float, Field(ge=0, le=5)]] = None


class TextAskBody(Body):
    """What a client asks for."""

    prompt: str
    params: TextParams = TextParams()
    models: tuple[str, ...] = ()
    trusted_workers: bool = False
    slow_workers: bool = True
    validated_backends: bool = True


class TextPopBody(Body):
    name: str
    models: tuple[ModelName, ...] = ()
    bridge_agent: Annotated[str, Field(max_length=1000)] = "unknown:0:unknown"
    nsfw: bool = True
    amount: Annotated[int, Field(ge=1, le=20)] = 1
    threads: Annotated[int, Field(ge=1, le=50)] = 1
    max_length: int = 512
    max_context_length: int = 2048
    priority_usernames: tuple[str, ...] = ()
    require_upfront_kudos: bool = False


class TextMetadata(Body):
    type: Literal["censorship"]
    value: Literal["csam"]


class TextSubmitBody(Body):
    id: str
    generation: str
    seed: int = 0
    state: Literal["ok", "censored", "faulted", "csam"] = "ok"
    gen_metadata: tuple[TextMetadata, ...] = ()
