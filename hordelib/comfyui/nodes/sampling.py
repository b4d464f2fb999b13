"""DreamerSampler: ComfyUI's KSampler with a seed per image, progress, and a way to stop it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, ClassVar

import comfy.model_management
import comfy.sample
import comfy.samplers
import comfy.utils
from torch import Tensor

from hordelib.comfyui.nodes.batches import Batch, in_batches
from hordelib.comfyui.nodes.context import HIDDEN_INPUT, RunContext
from hordelib.comfyui.nodes.members import Prompts, guided_each
from hordelib.comfyui.nodes.noise import first_noise, seeded_sampler
from hordelib.comfyui.nodes.step_invariants import sample_custom
from hordelib.job.params import SEEDS
from hordelib.job.samplers import UNBATCHABLE

Latent = dict[str, Any]


class DreamerSampler:
    """Takes and gives what KSampler does; image i of the batch is made with seed + i."""

    CATEGORY = "dreamer"
    FUNCTION = "sample"
    RETURN_TYPES: ClassVar[tuple[str, ...]] = ("LATENT",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "model": ("MODEL",),
                "positive": ("CONDITIONING",),
                "negative": ("CONDITIONING",),
                "latent_image": ("LATENT",),
                "seed": ("INT", {"min": 0, "max": SEEDS - 1}),
                "steps": ("INT", {"min": 1, "max": 10000}),
                "cfg": ("FLOAT", {"min": 0.0, "max": 100.0}),
                "sampler_name": (comfy.samplers.KSampler.SAMPLERS,),
                "scheduler": (comfy.samplers.KSampler.SCHEDULERS,),
                "denoise": ("FLOAT", {"min": 0.0, "max": 1.0}),
            },
            "optional": {"seeds": ("STRING", {}), "cfgs": ("STRING", {})},
            "hidden": HIDDEN_INPUT,
        }

    def sample(
        self,
        latent_image: Latent,
        seed: int,
        context: RunContext,
        seeds: str = "",
        cfgs: str = "",
        **settings: Any,
    ) -> tuple[Latent]:
        """`seeds` and `cfgs` are JSON lists, one of each for each image, where jobs share a batch.

        The prompts then have an entry for each job.
        """
        model = settings["model"]
        images = comfy.sample.fix_empty_latent_channels(model, latent_image["samples"])
        count = len(images)
        each_seed = json.loads(seeds) if seeds else [(seed + i) % SEEDS for i in range(count)]
        each_cfg = json.loads(cfgs) if cfgs else [settings["cfg"]] * count
        mask = _masks(latent_image, count)
        prompts = Prompts.of(settings["positive"], settings["negative"], count)

        def make(batch: Batch) -> Tensor:
            positive, negative = prompts.of_images(batch.images)
            own = {"positive": positive, "negative": negative}
            return _sample_batch(
                images[batch.images],
                each_seed[batch.images],
                each_cfg[batch.images],
                mask[batch.images] if mask is not None else None,
                step_progress(context, batch.number, batch.of),
                **{**settings, **own},
            )

        is_alone = settings["sampler_name"] in UNBATCHABLE
        samples = in_batches(prompts.companies, context.sizes, make, alone=is_alone)
        return ({**latent_image, "samples": samples},)


Progress = Callable[[int, Tensor, Tensor, int], None]


def _masks(latent_image: Latent, images: int) -> Tensor | None:
    """The latent's noise mask, one for each image; None where all is sampled."""
    if "noise_mask" not in latent_image:
        return None
    mask: Tensor = latent_image["noise_mask"]
    return comfy.utils.repeat_to_batch_size(mask, images)


def _sample_batch(
    images: Tensor,
    seeds: list[int],
    cfgs: list[float],
    noise_mask: Tensor | None,
    progress: Progress,
    *,
    model: Any,
    **settings: Any,
) -> Tensor:
    """What KSampler does (ComfyUI's nodes.common_ksampler), with noise and cfg scale per image."""
    model, cfg = guided_each(model, cfgs)
    schedule = comfy.samplers.KSampler(
        model,
        steps=settings["steps"],
        device=model.load_device,
        sampler=settings["sampler_name"],
        scheduler=settings["scheduler"],
        denoise=settings["denoise"],
        model_options=model.model_options,
    )
    return sample_custom(
        model,
        noise=first_noise(images, seeds),
        cfg=cfg,
        sampler=seeded_sampler(settings["sampler_name"], seeds),
        sigmas=schedule.sigmas,
        positive=settings["positive"],
        negative=settings["negative"],
        latent_image=images,
        noise_mask=noise_mask,
        callback=progress,
        disable_pbar=True,
        seed=seeds[0],
    )


def step_progress(context: RunContext, part: int, parts: int) -> Progress:
    """Tells of each step of this part, and ends the sampling where the job is cancelled."""

    def after_step(step: int, _denoised: Tensor, _x: Tensor, total: int) -> None:
        if context.cancelled.is_set():
            raise comfy.model_management.InterruptProcessingException
        context.on_step(part * total + min(step + 1, total), parts * total)

    return after_step
