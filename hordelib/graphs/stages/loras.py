"""LoRAs: a chain of them between the model and all that reads its UNet or its text encoder."""

from __future__ import annotations

from collections.abc import Iterable

from hordelib.graph import Graph, Link
from hordelib.job.params import Lora


def apply_loras(graph: Graph, loras: Iterable[Lora], model: Link, clip: Link) -> None:
    """Let every reader of `model` and `clip` read what the last LoRA makes of them.

    The stage that is applied last, since it has to find all readers: the second pass of hires fix,
    clip skip, tiling.
    """
    for i, lora in enumerate(lora for lora in loras if lora.model or lora.clip):
        model, clip = _apply(graph, f"lora_{i}", lora, model, clip)


def _apply(graph: Graph, title: str, lora: Lora, model: Link, clip: Link) -> tuple[Link, Link]:
    encoders = list(graph.readers(clip))
    graph.insert(
        model,
        title,
        "DreamerLora",
        reads="model",
        clip=clip,
        lora_name=lora.name,
        path=str(lora.path),
        strength_model=lora.model,
        strength_clip=lora.clip,
    )
    for encoder, name in encoders:
        graph.set(encoder, **{name: Link(title, 1)})
    return Link(title, 0), Link(title, 1)
