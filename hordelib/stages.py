"""The optional parts of a graph, one pure function each; workflows.py applies them in order."""

from __future__ import annotations

from hordelib.graph import Graph, Link
from hordelib.hires import first_pass_size, needs_two_passes, second_pass_steps
from hordelib.params import GenerationParams

CLIP = Link("checkpoint", 1)
LATENT = Link("sampler", 0)


def skip_clip_layers(graph: Graph, clip_skip: int) -> None:
    """Read the prompts `clip_skip` layers before the text encoder's end, for every encoder at once.

    1 keeps the layer that the model was trained with (the last one for SD1, the one before it for
    SD2 and SDXL), so that a job which says nothing gets what the model's author meant.
    """
    if clip_skip > 1:
        graph.insert(
            CLIP, "clip_skip", "CLIPSetLastLayer", reads="clip", stop_at_clip_layer=-clip_skip
        )


def fix_hires(graph: Graph, params: GenerationParams, native_side: int) -> None:
    """Sample near the model's own size first, then enlarge the latent and sample it again.

    A model that starts above its own size repeats things all over the picture. The second pass has
    everything from the first but its steps, its denoising, and the latent it starts from.
    """
    width, height = params.width, params.height
    if not params.hires_fix or not needs_two_passes(width, height, native_side):
        return
    first_width, first_height = first_pass_size(width, height, native_side)
    graph.set("latent", width=first_width, height=first_height)
    graph.insert(
        LATENT,
        "latent_upscale",
        "LatentUpscale",
        reads="samples",
        upscale_method="nearest-exact",
        width=width,
        height=height,
        crop="disabled",
    )
    second_pass = graph.inputs("sampler") | {
        "steps": second_pass_steps(width, height, params.steps, params.hires_denoise, native_side),
        "denoise": params.hires_denoise,
    }
    del second_pass["latent_image"]
    graph.insert(
        Link("latent_upscale", 0),
        "upscale_sampler",
        graph.class_type("sampler"),
        reads="latent_image",
        **second_pass,
    )
