"""Prompts: where their embeddings are looked for, and one length for both."""

from __future__ import annotations

import json
from pathlib import Path

from hordelib.graph import Graph, Link

PROMPT, NEGATIVE_PROMPT = Link("prompt", 0), Link("negative_prompt", 0)


def find_embeddings(graph: Graph, folder: Path, clip: Link) -> None:
    """Have `embedding:name` in every prompt mean a file of this folder."""
    graph.insert(clip, "embeddings", "DreamerEmbeddings", reads="clip", folder=str(folder))


def texts_of(graph: Graph) -> tuple[str, ...]:
    """All prompts that the graph will have encoded in any case."""
    prompts = (graph.inputs(link.node) for link in _BOTH if link.node in graph.titles)
    return tuple(
        text
        for inputs in prompts
        for text in (json.loads(inputs["texts"]) if "texts" in inputs else [inputs["text"]])
    )


def even_prompts(graph: Graph, clip: Link) -> None:
    """Bring both prompts to one length, so that a step takes one run of the UNet, not two.

    Only for models that read the prompt by cross attention: for the others a token more is another
    picture.
    """
    readers = {Link("even_prompts", i): list(graph.readers(link)) for i, link in enumerate(_BOTH)}
    graph.add("empty_prompt", "CLIPTextEncode", clip=clip, text="")
    graph.add(
        "even_prompts",
        "DreamerEvenChunks",
        positive=PROMPT,
        negative=NEGATIVE_PROMPT,
        empty=Link("empty_prompt", 0),
    )
    for even, inputs in readers.items():
        for reader, name in inputs:
            graph.set(reader, **{name: even})


_BOTH = (PROMPT, NEGATIVE_PROMPT)
