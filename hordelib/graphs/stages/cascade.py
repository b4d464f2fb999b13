"""Stable Cascade: stage C paints a very small latent, stage B makes a picture's latent of it."""

from __future__ import annotations

from typing import Any

from hordelib.graph import Graph, Link
from hordelib.graphs.stages.hires import has_two_passes, second_denoise
from hordelib.graphs.stages.starts import SOURCE_PIXELS, add_image, add_scaled, repaint
from hordelib.job.hires import second_pass_steps
from hordelib.job.images import SourceImage
from hordelib.job.params import FromImage, GenerationParams, Inpaint, Remix

# Pixels per latent pixel of stage C. 42 is what it was trained with; the horde's engine gives both
# passes of hires fix the finer 32.
COMPRESSION, FINE_COMPRESSION = 42, 32
SHARE_OF_C, SHARE_OF_B = 0.67, 0.33  # of the job's steps
C, B, ENCODER = Link("stage_c", 0), Link("stage_b", 0), Link("stage_c", 2)


def split_steps(steps: int) -> tuple[int, int]:
    """Steps of stage C and of stage B: the horde's engine's shares, at least one each.

    >>> split_steps(30)
    (20, 10)
    """
    return max(1, round(SHARE_OF_C * steps)), max(1, round(SHARE_OF_B * steps))


def run_in_two_stages(
    graph: Graph, params: GenerationParams, size: tuple[int, int], native_side: int
) -> None:
    """Give both stages the job's settings, its source, and with hires fix a second pass.

    Stage B has no text and a cfg of its own, which stays as the spine has it.
    """
    steps_c, steps_b = split_steps(params.steps)
    graph.set("sampler", steps=steps_c)
    alike = ("seed", "sampler_name", "scheduler", "options")
    settings = {name: value for name, value in graph.inputs("sampler").items() if name in alike}
    graph.extend("sampler_b", steps=steps_b, **settings)
    match params.source:
        case FromImage(image):
            _encode(graph, params, image, size)
        case Inpaint(image, mask):
            _encode(graph, params, image, size)
            repaint(graph, mask, params.images)
        case Remix(images):
            _remix(graph, images)
        case _:
            pass
    if has_two_passes(params, native_side):
        _second_pass(graph, params, native_side)


def _encode(
    graph: Graph, params: GenerationParams, image: SourceImage, size: tuple[int, int]
) -> None:
    """Both stages' latents from a source; stage B's is empty, and only stage C denoises less."""
    pixels = add_scaled(graph, SOURCE_PIXELS.node, add_image(graph, "source", image), size)
    _add_encoder(graph, "source_latent", pixels, COMPRESSION)
    graph.remove("latent")
    for title, slot, sampler in (("latent", 0, "sampler"), ("latent_b", 1, "sampler_b")):
        source = Link("source_latent", slot)
        graph.add(title, "RepeatLatentBatch", samples=source, amount=params.images)
        graph.set(sampler, latent_image=Link(title, 0))
    graph.set("sampler", denoise=params.denoise)


def _add_encoder(graph: Graph, title: str, pixels: Link, compression: int) -> None:
    graph.add(
        title, "StableCascade_StageC_VAEEncode", image=pixels, vae=ENCODER, compression=compression
    )


def _remix(graph: Graph, images: tuple[tuple[SourceImage, float], ...]) -> None:
    """Add what each picture shows, by its strength, to what the prompt says."""
    graph.add("clip_vision", "DreamerClipVision", ckpt_name=graph.inputs("stage_c")["ckpt_name"])
    conditioning = graph.inputs("sampler")["positive"]
    for i, (image, strength) in enumerate(images):
        seen = graph.add(
            f"remix_{i}_seen",
            "CLIPVisionEncode",
            clip_vision=Link("clip_vision", 0),
            image=add_image(graph, f"remix_{i}", image),
            crop="center",
        )
        told = graph.add(
            f"remix_{i}_told",
            "unCLIPConditioning",
            conditioning=conditioning,
            clip_vision_output=Link(seen, 0),
            strength=strength,
            noise_augmentation=0.0,
        )
        conditioning = Link(told, 0)
    graph.set("sampler", positive=conditioning)


def _second_pass(graph: Graph, params: GenerationParams, native_side: int) -> None:
    """Decode the first pass, enlarge the picture, and send it through both stages again."""
    width, height, denoise = params.width, params.height, second_denoise(params)
    if graph.class_type("latent") == "StableCascade_EmptyLatentImage":
        graph.set("latent", compression=FINE_COMPRESSION)
    graph.add("first_decode", "VAEDecode", **graph.inputs("decode"))
    pixels = add_scaled(graph, "upscale", Link("first_decode", 0), (width, height))
    _add_encoder(graph, "upscale_latent", pixels, FINE_COMPRESSION)
    steps = second_pass_steps(width, height, params.steps, denoise, native_side)
    steps_c, steps_b = split_steps(steps)
    second = {"latent_image": Link("upscale_latent", 0), "steps": steps_c, "denoise": denoise}
    _copy(graph, "sampler", "upscale_sampler", second)
    _copy(graph, "prior", "upscale_prior", {"stage_c": Link("upscale_sampler", 0)})
    second = {
        "latent_image": Link("upscale_latent", 1),
        "positive": Link("upscale_prior", 0),
        "steps": steps_b,
    }
    _copy(graph, "sampler_b", "upscale_sampler_b", second)
    graph.set("decode", samples=Link("upscale_sampler_b", 0))


def _copy(graph: Graph, title: str, copy: str, changed: dict[str, Any]) -> None:
    graph.add(copy, graph.class_type(title), **{**graph.inputs(title), **changed})
