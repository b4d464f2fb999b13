"""What a sampler node is told of how to sample."""

from __future__ import annotations

import json

from hordelib.graph import Graph, Link
from hordelib.job.families import Family
from hordelib.job.params import GenerationParams
from hordelib.job.samplers import Scheduler

FLUX_SHIFT = "ModelSamplingFlux"
# Flux's is an exponent. From here on all noise levels are 1 in 32 bits, and above 88 not numbers.
MOST_SHIFT = 80.0


def set_sampling(graph: Graph, title: str, params: GenerationParams, family: Family) -> None:
    """Steps, cfg scale, sampler with its options, and schedule of a KSampler or KSamplerAdvanced.

    What copies the node's inputs, as a second pass does, has all of it too.
    """
    sampler = params.sampler
    graph.set(
        title,
        steps=params.steps,
        cfg=params.cfg,
        sampler_name=sampler.comfy_name,
        scheduler=schedule_name(params.scheduler, family),
    )
    options = sampler.keywords(params.sampler_options)
    if options:
        graph.extend(title, options=json.dumps(options))


def schedule_name(scheduler: Scheduler, family: Family) -> str:
    """As hordelib.comfyui.nodes.schedules has it: AlignYourSteps has a table for each family."""
    if scheduler is Scheduler.align_your_steps:
        return f"{scheduler}_{family.noise_table}"
    return scheduler.value


def shift_noise(graph: Graph, shift: float, size: tuple[int, int], model: Link) -> None:
    """Move the noise levels of a flow model, of families that `fit` lets through.

    In the spine's own node where it has one. Flux's own shift grows with the size in pixels; the
    job's does not.
    """
    if "shift" in graph.titles:
        graph.set("shift", shift=shift)
        return
    shift = min(shift, MOST_SHIFT)
    graph.insert(
        model,
        "shift",
        FLUX_SHIFT,
        reads="model",
        max_shift=shift,
        base_shift=shift,
        width=size[0],
        height=size[1],
    )
