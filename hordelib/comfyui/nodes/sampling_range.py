"""DreamerSamplerAdvanced: some of a sampler's steps, with a seed per image."""

from __future__ import annotations

from typing import Any, ClassVar

import comfy.sample
import comfy.samplers
import torch
from torch import Tensor

from hordelib.comfyui.nodes.batches import Batch, in_batches
from hordelib.comfyui.nodes.context import HIDDEN_INPUT, NodeNotes, RunContext, with_notes
from hordelib.comfyui.nodes.noise import first_noise
from hordelib.comfyui.nodes.sampling import SAMPLER_NAMES, TEXT, Latent, Solver, step_progress
from hordelib.comfyui.nodes.schedules import noise_levels
from hordelib.comfyui.nodes.step_invariants import sample_custom
from hordelib.job.params import SEEDS

SWITCH = (["enable", "disable"],)


class DreamerSamplerAdvanced:
    """Takes and gives what KSamplerAdvanced does; image i of the batch is made with seed + i."""

    CATEGORY = "dreamer"
    FUNCTION = "sample"
    RETURN_TYPES: ClassVar[tuple[str, ...]] = ("LATENT",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "model": ("MODEL",),
                "add_noise": SWITCH,
                "noise_seed": ("INT", {"min": 0, "max": SEEDS - 1}),
                "steps": ("INT", {"min": 1, "max": 10000}),
                "cfg": ("FLOAT", {"min": 0.0, "max": 100.0}),
                "sampler_name": (SAMPLER_NAMES,),
                "scheduler": (comfy.samplers.KSampler.SCHEDULERS,),
                "positive": ("CONDITIONING",),
                "negative": ("CONDITIONING",),
                "latent_image": ("LATENT",),
                "start_at_step": ("INT", {"min": 0, "max": 10000}),
                "end_at_step": ("INT", {"min": 0, "max": 10000}),
                "return_with_leftover_noise": SWITCH,
            },
            "optional": {"options": TEXT},
            "hidden": HIDDEN_INPUT,
        }

    def sample(
        self,
        model: Any,
        latent_image: Latent,
        noise_seed: int,
        context: RunContext,
        options: str = "",
        **settings: Any,
    ) -> dict[str, Any]:
        images = comfy.sample.fix_empty_latent_channels(model, latent_image["samples"])
        seeds = [(noise_seed + i) % SEEDS for i in range(len(images))]
        is_noisy = settings["add_noise"] == "disable"
        solver = Solver(settings["sampler_name"], options)
        sigmas = _sigmas(model, **settings)

        def make(batch: Batch) -> Tensor:
            some, own_seeds = images[batch.images], seeds[batch.images]
            return sample_custom(
                model,
                noise=torch.zeros_like(some) if is_noisy else first_noise(some, own_seeds),
                cfg=settings["cfg"],
                sampler=solver.seeded(own_seeds),
                sigmas=sigmas.clone(),  # uni_pc writes into them
                positive=settings["positive"],
                negative=settings["negative"],
                latent_image=some,
                callback=step_progress(context, batch.number, batch.of),
                disable_pbar=True,
                seed=own_seeds[0],
            )

        whole = [slice(0, len(images))]
        samples = in_batches(whole, context.sizes, make, alone=solver.is_alone)
        return with_notes(({**latent_image, "samples": samples},), NodeNotes(solver.notes))


def _sigmas(
    model: Any,
    *,
    steps: int,
    sampler_name: str,
    scheduler: str,
    start_at_step: int,
    end_at_step: int,
    **settings: Any,
) -> Tensor:
    """The noise levels from the first to the last of the steps, the last one 0 if so asked."""
    levels = noise_levels(model, steps=steps, sampler_name=sampler_name, scheduler=scheduler)
    sigmas = levels[start_at_step : end_at_step + 1].clone()
    if settings["return_with_leftover_noise"] == "disable":
        sigmas[-1] = 0
    return sigmas
