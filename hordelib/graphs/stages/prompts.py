"""What a job's prompts need: encoding, layers of the text encoder, guidance."""

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


def skip_clip_layers(graph: Graph, clip_skip: int, clip: Link) -> None:
    """Read the prompts `clip_skip` layers before the text encoder's end, for every encoder at once.

    1 keeps the layer that the model was trained with (the last one for SD1, the one before it for
    SD2 and SDXL), so that a job which says nothing gets what the model's author meant.
    """
    if clip_skip > 1:
        graph.insert(
            clip, "clip_skip", "CLIPSetLastLayer", reads="clip", stop_at_clip_layer=-clip_skip
        )


def guide(graph: Graph, cfg: float) -> None:
    """Give the job's cfg scale to a network such as Flux dev's, in place of a second run.

    The network was distilled to need no negative prompt; both ways at once would guide twice.
    """
    graph.insert(Link("prompt", 0), "guidance", "FluxGuidance", reads="conditioning", guidance=cfg)
    graph.set("sampler", cfg=1.0)
