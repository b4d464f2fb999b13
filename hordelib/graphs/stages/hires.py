"""Hires fix: a first pass near the model's own size, and a second one at the size asked for."""

from __future__ import annotations

from hordelib.graph import Graph, Link
from hordelib.job.hires import first_pass_size, needs_two_passes, second_pass_steps
from hordelib.job.params import GenerationParams, Inpaint, TextOnly

LATENT = Link("sampler", 0)
USUAL_DENOISE = 0.65  # the horde's default for hires_fix_denoising_strength


def has_two_passes(params: GenerationParams, native_side: int) -> bool:
    """Whether hires fix does anything: the size is larger than the model's own, and nothing of a
    source has to stay as it is.
    """
    return (
        params.hires_fix
        and not isinstance(params.source, Inpaint)
        and needs_two_passes(params.width, params.height, native_side)
    )


def start_size(params: GenerationParams, native_side: int) -> tuple[int, int]:
    """Width and height in pixels that sampling starts with."""
    if has_two_passes(params, native_side):
        return first_pass_size(params.width, params.height, native_side)
    return params.width, params.height


def fix_hires(graph: Graph, params: GenerationParams, native_side: int) -> None:
    """Enlarge the sampled latent to the wanted size and sample it again.

    A model that starts above its own size repeats things all over the picture. The second pass has
    everything from the first but its steps, its denoising, and the latent it starts from.
    """
    if not has_two_passes(params, native_side):
        return
    width, height, denoise = params.width, params.height, second_denoise(params)
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
        "steps": second_pass_steps(width, height, params.steps, denoise, native_side),
        "denoise": denoise,
    }
    del second_pass["latent_image"]
    graph.insert(
        Link("latent_upscale", 0),
        "upscale_sampler",
        graph.class_type("sampler"),
        reads="latent_image",
        **second_pass,
    )


def second_denoise(params: GenerationParams) -> float:
    """As asked for; else what was asked of a source image, so that both passes keep as much."""
    if params.hires_denoise is not None:
        return params.hires_denoise
    return USUAL_DENOISE if isinstance(params.source, TextOnly) else params.denoise
