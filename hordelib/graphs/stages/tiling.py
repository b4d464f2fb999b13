"""Seamless pictures: the left edge continues the right one, the top the bottom."""

from __future__ import annotations

from hordelib.graph import Graph, Link


def tile(graph: Graph, model: Link, vae: Link) -> None:
    """Let every convolution of UNet and VAE read around the edges."""
    for title, after in (("tiled_model", model), ("tiled_vae", vae)):
        kind = "DreamerTiledModel" if after == model else "DreamerTiledVae"
        graph.insert(after, title, kind, reads=title.removeprefix("tiled_"))
