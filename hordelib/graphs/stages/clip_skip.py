"""Clip skip: prompts read before the text encoder's end."""

from __future__ import annotations

from hordelib.graph import Graph, Link


def skip_clip_layers(graph: Graph, clip_skip: int, clip: Link) -> None:
    """Read the prompts `clip_skip` layers before the text encoder's end, for every encoder at once.

    1 keeps the layer that the model was trained with (the last one for SD1, the one before it for
    SD2 and SDXL), so that a job which says nothing gets what the model's author meant.
    """
    if clip_skip > 1:
        graph.insert(
            clip, "clip_skip", "CLIPSetLastLayer", reads="clip", stop_at_clip_layer=-clip_skip
        )
