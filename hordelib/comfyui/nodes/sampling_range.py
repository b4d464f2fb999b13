"""DreamerSamplerAdvanced: some of a sampler's steps, with a seed per image."""

from __future__ import annotations

from typing import Any, ClassVar

import comfy.sample
import comfy.samplers
import torch
from torch import Tensor

from hordelib.comfyui.nodes.batches import Batch, in_batches
from hordelib.comfyui.nodes.context import HIDDEN_INPUT, RunContext
from hordelib.comfyui.nodes.noise import first_noise, seeded_sampler
from hordelib.comfyui.nodes.sampling import Latent, step_progress
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
                "sampler_name": (comfy.samplers.KSampler.SAMPLERS,),
                "scheduler": (comfy.samplers.KSampler.SCHEDULERS,),
                "positive": ("CONDITIONING",),
                "negative": ("CONDITIONING",),
                "latent_image": ("LATENT",),
                "start_at_step": ("INT", {"min": 0, "max": 10000}),
                "end_at_step": ("INT", {"min": 0, "max": 10000}),
                "return_with_leftover_noise": SWITCH,
            },
            "hidden": HIDDEN_INPUT,
        }

    def sample(
        self,
        model: Any,
        latent_image: Latent,
        noise_seed: int,
        context: RunContext,
        **settings: Any,
    ) -> tuple[Latent]:
        images = comfy.sample.fix_empty_latent_channels(model, latent_image["samples"])
        seeds = [(noise_seed + i) % SEEDS for i in range(len(images))]
        is_noisy = settings["add_noise"] == "disable"
        sigmas = _sigmas(model, **settings)

        def make(batch: Batch) -> Tensor:
            some, own_seeds = images[batch.images], seeds[batch.images]
            return sample_custom(
                model,
                noise=torch.zeros_like(some) if is_noisy else first_noise(some, own_seeds),
                cfg=settings["cfg"],
                sampler=seeded_sampler(settings["sampler_name"], own_seeds),
                sigmas=sigmas,
                positive=settings["positive"],
                negative=settings["negative"],
                latent_image=some,
                callback=step_progress(context, batch.number, batch.of),
                disable_pbar=True,
                seed=own_seeds[0],
            )

        samples = in_batches([slice(0, len(images))], context.sizes, make)
        return ({**latent_image, "samples": samples},)


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
    schedule = comfy.samplers.KSampler(
        model,
        steps=steps,
        device=model.load_device,
        sampler=sampler_name,
        scheduler=scheduler,
        denoise=1.0,
        model_options=model.model_options,
    )
    sigmas = schedule.sigmas[start_at_step : end_at_step + 1].clone()
    if settings["return_with_leftover_noise"] == "disable":
        sigmas[-1] = 0
    return sigmas
