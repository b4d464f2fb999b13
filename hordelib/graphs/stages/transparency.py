"""Transparent pictures: a UNet that draws them, and a decoder that finds their opacity."""

from __future__ import annotations

from hordelib.graph import Graph, Link
from hordelib.graphs.stages.starts import PICTURE
from hordelib.job.families import Family
from hordelib.job.params import Transparency
from hordelib.job.transparency import LAYER_DIFFUSE

SAMPLERS = ("KSampler", "KSamplerAdvanced")


def make_transparent(graph: Graph, files: Transparency, family: Family, *, is_tiling: bool) -> None:
    """Have all samplers use LayerDiffuse's UNet, and what they made decoded with its opacity.

    To come before LoRAs and tiling, so that the patches are added to those of LoRAs, and after all
    that adds samplers. A ControlNet follows the UNet without the patches. What is kept of a source
    under a mask is opaque.
    """
    _patch(graph, files, family)
    graph.add("transparent_decoder", "DreamerTransparentDecoder", path=str(files.decoder))
    graph.insert(
        PICTURE,
        "transparent",
        "DreamerTransparentDecode",
        reads="image",
        decoder=Link("transparent_decoder", 0),
        samples=graph.inputs(PICTURE.node)["samples"],
        is_tiling=is_tiling,
    )
    if "kept" in graph.titles:
        graph.insert(Link("kept", 0), "opaque", "DreamerOpaque", reads="image")


def _patch(graph: Graph, files: Transparency, family: Family) -> None:
    readers = [
        (title, name)
        for title, name in graph.readers(family.model)
        if graph.class_type(title) in SAMPLERS
    ]
    path = str(files.patches)
    patched = graph.add("layer_patches", "DreamerLayerPatches", model=family.model, path=path)
    if LAYER_DIFFUSE[family.name].shares_attention:
        shared = {"model": Link(patched, 0), "path": path}
        patched = graph.add("attention_sharing", "DreamerAttentionSharing", **shared)
    for title, name in readers:
        graph.set(title, **{name: Link(patched, 0)})
