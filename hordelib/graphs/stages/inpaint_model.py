"""Inpainting models: the UNet sees the mask, and the source without what is under it."""

from __future__ import annotations

from hordelib.graph import Graph, Link
from hordelib.graphs.stages.source import SOURCE_PIXELS

MASK = Link("mask", 1)


def show_mask(graph: Graph, vae: Link) -> None:
    """Tell the model what to fill in; what is sampled stays as for ordinary models."""
    prompts = {name: graph.inputs("sampler")[name] for name in ("positive", "negative")}
    graph.add(
        "shown_mask",
        "InpaintModelConditioning",
        pixels=SOURCE_PIXELS,
        mask=MASK,
        vae=vae,
        noise_mask=False,
        **prompts,
    )
    graph.set("sampler", positive=Link("shown_mask", 0), negative=Link("shown_mask", 1))
