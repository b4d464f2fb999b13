"""What changes a job's model: LoRAs, and seams that vanish."""

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


def tile(graph: Graph, model: Link, vae: Link) -> None:
    """Let every convolution of UNet and VAE read around the edges.

    So the picture's left edge continues the right one, and the top the bottom.
    """
    for title, after in (("tiled_model", model), ("tiled_vae", vae)):
        kind = "DreamerTiledModel" if after == model else "DreamerTiledVae"
        graph.insert(after, title, kind, reads=title.removeprefix("tiled_"))
