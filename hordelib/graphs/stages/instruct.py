"""Instruct-pix2pix models: the prompt says what to change about the source."""

from __future__ import annotations

from hordelib.graph import Graph, Link
from hordelib.graphs.stages.source import SOURCE_PIXELS


def change_as_told(graph: Graph, vae: Link) -> None:
    """Show the UNet the source's latent beside the one that it samples.

    The source reaches both prompts, so that one cfg scale, the job's, says how far the picture
    follows the prompt (ComfyUI's own way; the paper's second scale, for the source, is its 1).
    Denoising strength means what it does elsewhere: at 1 the sampled latent starts from noise, and
    the picture knows the source only by what the UNet is shown of it.
    """
    prompts = {name: graph.inputs("sampler")[name] for name in ("positive", "negative")}
    graph.add("instruct", "InstructPixToPixConditioning", pixels=SOURCE_PIXELS, vae=vae, **prompts)
    graph.set("sampler", positive=Link("instruct", 0), negative=Link("instruct", 1))
