"""What the horde's payload is called at each API: one table for each.

KoboldAI's API has the horde's own names. Of OpenAI's completions only the first rows are known to
all servers; what each of them has beside that is named as its documentation names it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from worker.scribe.order import TextOrder
from worker.scribe.text_server import Software

Convert = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Row:
    """`key` of the horde is `name` there, at `servers`; none named are all.

    A `neutral` value, which changes nothing, is left out.
    """

    key: str
    name: str
    servers: frozenset[Software] = frozenset()
    neutral: object = None
    convert: Convert = lambda value: value


_BATCHING = frozenset({Software.vllm, Software.aphrodite})
_LLAMA = frozenset({Software.llama_cpp, Software.llama_cpp_python})
_ALL_BUT_PLAIN = _BATCHING | _LLAMA | {Software.tabby}
_KNOW_MORE = frozenset({Software.aphrodite, Software.tabby})

KOBOLD: tuple[Row, ...] = tuple(
    Row(key, key)
    for key in (
        "prompt", "max_length", "max_context_length", "temperature", "top_p", "top_k", "top_a",
        "typical", "tfs", "min_p", "rep_pen", "rep_pen_range", "rep_pen_slope", "sampler_order",
        "stop_sequence", "singleline", "frmtadsnsp", "frmtrmblln", "frmtrmspch", "frmttriminc",
        "use_default_badwordsids", "smoothing_factor", "dynatemp_range", "dynatemp_exponent",
    )
)  # fmt: skip

COMPLETIONS: tuple[Row, ...] = (
    Row("temperature", "temperature"),
    Row("top_p", "top_p"),
    # Others leave it out of the text that they send: there, the text is cut when it comes.
    Row("stop_sequence", "stop", _BATCHING, neutral=[]),
    Row("top_k", "top_k", _ALL_BUT_PLAIN, convert=lambda k: k or -1),  # 0 is all tokens
    Row("min_p", "min_p", _ALL_BUT_PLAIN, neutral=0),
    Row("rep_pen", "repetition_penalty", _BATCHING | {Software.tabby}),
    Row("rep_pen", "repeat_penalty", _LLAMA),
    Row("rep_pen_range", "repeat_last_n", frozenset({Software.llama_cpp})),
    Row("rep_pen_range", "penalty_range", frozenset({Software.tabby})),
    Row("typical", "typical_p", frozenset({Software.llama_cpp, Software.aphrodite})),
    Row("typical", "typical", frozenset({Software.tabby})),
    Row("tfs", "tfs", _KNOW_MORE),
    Row("top_a", "top_a", _KNOW_MORE),
    Row("smoothing_factor", "smoothing_factor", _KNOW_MORE, neutral=0),
    Row("dynatemp_range", "dynatemp_range", frozenset({Software.llama_cpp}), neutral=0),
    Row("dynatemp_exponent", "dynatemp_exponent", frozenset({Software.llama_cpp}), neutral=1),
)


def mapped(rows: tuple[Row, ...], payload: Mapping[str, Any], server: Software) -> dict[str, Any]:
    """The keys of a payload in the words of a server."""
    return {
        row.name: row.convert(payload[row.key])
        for row in rows
        if row.key in payload
        and payload[row.key] != row.neutral
        and (not row.servers or server in row.servers)
    }


def kobold_body(order: TextOrder, software: Software, id: str) -> dict[str, Any]:
    """The body of a generation; `genkey` is what it can be ended by."""
    told = mapped(KOBOLD, order.payload, software)
    return {**told, "n": 1, "quiet": True, "trim_stop": False, "genkey": genkey(id)}


def genkey(id: str) -> str:
    return f"HORDEREQ_{id}"


def completions_body(order: TextOrder, software: Software, model: str) -> dict[str, Any]:
    """The body of a completion that is streamed."""
    told = mapped(COMPLETIONS, order.payload, software)
    told |= {"model": model, "n": 1, "stream": True}
    told |= {"prompt": order.prompt, "max_tokens": order.max_length}
    if order.is_single_line:
        told["stop"] = ["\n"]
    elif software in _BATCHING:
        told["include_stop_str_in_output"] = True
    if software in _BATCHING and order.room > 0:
        told["truncate_prompt_tokens"] = order.room
    return told
