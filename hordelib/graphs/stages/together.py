"""Several jobs in one batch: prompts, seeds, cfg scales and source pictures of each."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from hordelib.graph import Graph, Link
from hordelib.graphs.stages.starts import SOURCE_PIXELS
from hordelib.job.batching import Member, source_name
from hordelib.job.params import FromImage

SAMPLER = "DreamerSampler"
PROMPTS = "DreamerPrompts"


def run_together(graph: Graph, members: Sequence[Member]) -> None:
    """Make the graph of the first member, with the images of all, give each one its own pictures.

    The members agree in all but what `share_key` leaves out.
    """
    params = [member.params for member in members]
    images = [each.images for each in params]
    _say(graph, "prompt", [each.prompt for each in params], images)
    _say(graph, "negative_prompt", [each.negative_prompt for each in params], images)
    seeds = [each.image_seed(i) for each in params for i in range(each.images)]
    cfgs = [each.cfg for each in params for _ in range(each.images)]
    for title in _samplers(graph):
        graph.extend(title, seeds=json.dumps(seeds), cfgs=json.dumps(cfgs))
    if isinstance(params[0].source, FromImage):
        _start_from_sources(graph, members)


def _say(graph: Graph, title: str, texts: Sequence[str], images: Sequence[int]) -> None:
    clip = graph.inputs(title)["clip"]
    graph.remove(title)
    graph.add(title, PROMPTS, texts=json.dumps(texts), images=json.dumps(images), clip=clip)


def _samplers(graph: Graph) -> Iterator[str]:
    return (title for title in graph.titles if graph.class_type(title) == SAMPLER)


def _start_from_sources(graph: Graph, members: Sequence[Member]) -> None:
    """The first member's picture becomes a batch with the pictures of all, in their order."""
    scaled = graph.inputs(SOURCE_PIXELS.node)
    pictures = [
        (source_name(i), member.params.source.image.digest, member.params.images)
        for i, member in enumerate(members)
        if isinstance(member.params.source, FromImage)
    ]
    graph.remove(SOURCE_PIXELS.node)
    graph.remove("source")
    graph.add(
        SOURCE_PIXELS.node,
        "DreamerSources",
        pictures=json.dumps(pictures),
        width=scaled["width"],
        height=scaled["height"],
    )
    graph.set("latent", amount=1, samples=Link("source_latent", 0))
