"""From parameters to a graph: a spine per model family, then the stages that the job asks for."""

from __future__ import annotations

from pathlib import Path

from hordelib.graph import Graph
from hordelib.params import GenerationParams
from hordelib.stages import fix_hires, skip_clip_layers

SPINES = Path(__file__).parent.parent / "comfy_workflows"

# Spines are plain ComfyUI, so that they open and run there; in our process these nodes do the same
# with the model cache, with a seed per image, and with pictures that stay in memory.
OUR_NODES = {
    "CheckpointLoaderSimple": "DreamerCheckpoint",
    "KSampler": "DreamerSampler",
    "SaveImage": "DreamerOutput",
}


def text_to_image(params: GenerationParams, checkpoint: str, native_side: int) -> Graph:
    """The graph for a Stable Diffusion 1, 2 or XL checkpoint (a name that the engine has on loan).

    `native_side` is the picture size that the model was trained on, in pixels. Pure: the same
    parameters always give the same graph.
    """
    graph = Graph.load(SPINES / "stable_diffusion.json")
    graph.set("checkpoint", ckpt_name=checkpoint)
    graph.set("prompt", text=params.prompt)
    graph.set("negative_prompt", text=params.negative_prompt)
    graph.set("latent", width=params.width, height=params.height, batch_size=params.images)
    graph.set(
        "sampler",
        seed=params.seed,
        steps=params.steps,
        cfg=params.cfg,
        sampler_name=params.sampler.comfy_name,
        scheduler=params.scheduler.value,
    )
    skip_clip_layers(graph, params.clip_skip)
    fix_hires(graph, params, native_side)
    graph.substitute(OUR_NODES)
    return graph
