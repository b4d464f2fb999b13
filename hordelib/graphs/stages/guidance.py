"""Guidance-distilled models, as Flux dev: the guidance is an input of the network."""

from __future__ import annotations

from hordelib.graph import Graph, Link


def guide(graph: Graph, cfg: float) -> None:
    """Give the job's cfg scale to the network itself, in place of a second run without prompt.

    The network was distilled to need no negative prompt; both ways at once would guide twice.
    """
    graph.insert(Link("prompt", 0), "guidance", "FluxGuidance", reads="conditioning", guidance=cfg)
    graph.set("sampler", cfg=1.0)
