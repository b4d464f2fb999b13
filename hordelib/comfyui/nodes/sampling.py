"""ComfyUI's KSampler and KSamplerAdvanced with a seed per image, progress, and a way to stop."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, ClassVar

import comfy.model_management
import comfy.sample
import comfy.samplers
import comfy.utils
import torch
from torch import Tensor

from hordelib.comfyui.nodes.batches import Batch, Prompts, guided_each, in_batches
from hordelib.comfyui.nodes.context import HIDDEN_INPUT, NodeNotes, RunContext, with_notes
from hordelib.comfyui.nodes.noise import first_noise, seeded_sampler
from hordelib.comfyui.nodes.schedules import noise_levels
from hordelib.comfyui.nodes.step_invariants import sample_custom
from hordelib.job.notes import GenMetadata, MetadataType, MetadataValue
from hordelib.job.params import SEEDS
from hordelib.job.samplers import STEP_NOISE, UNBATCHABLE

Latent = dict[str, Any]
TEXT: tuple[str, dict[str, Any]] = ("STRING", {})
SWITCH = (["enable", "disable"],)
SAMPLER_NAMES = sorted(STEP_NOISE)  # ComfyUI's, and those that its version may not have


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
                "sampler_name": (SAMPLER_NAMES,),
                "scheduler": (comfy.samplers.KSampler.SCHEDULERS,),
                "denoise": ("FLOAT", {"min": 0.0, "max": 1.0}),
            },
            "optional": {"seeds": TEXT, "cfgs": TEXT, "options": TEXT},
            "hidden": HIDDEN_INPUT,
        }

    def sample(
        self,
        latent_image: Latent,
        seed: int,
        context: RunContext,
        seeds: str = "",
        cfgs: str = "",
        options: str = "",
        **settings: Any,
    ) -> dict[str, Any]:
        """`seeds` and `cfgs` are JSON lists, one of each for each image, where jobs share a batch.

        The prompts then have an entry for each job. `options` is JSON too: the sampler's, by the
        names that its function has for them.
        """
        model = settings["model"]
        images = comfy.sample.fix_empty_latent_channels(model, latent_image["samples"])
        count = len(images)
        each_seed = json.loads(seeds) if seeds else [(seed + i) % SEEDS for i in range(count)]
        each_cfg = json.loads(cfgs) if cfgs else [settings["cfg"]] * count
        mask = _masks(latent_image, count)
        solver = Solver(settings["sampler_name"], options)
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
                solver=solver,
                **{**settings, **own},
            )

        samples = in_batches(prompts.companies, context.sizes, make, alone=solver.is_alone)
        return with_notes(({**latent_image, "samples": samples},), NodeNotes(solver.notes))


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


class Solver:
    """A sampler with its options, and what there is to disclose of how it ran."""

    def __init__(self, name: str, options: str):
        self.is_alone = name in UNBATCHABLE
        self.notes: list[GenMetadata] = []
        self._name = name
        self._options: dict[str, Any] = json.loads(options) if options else {}

    def seeded(self, seeds: list[int]) -> comfy.samplers.KSAMPLER:
        """For images of these seeds."""
        return seeded_sampler(self._name, seeds, self._options, on_bound=self._stopped)

    def _stopped(self, iterations: int) -> None:
        told = f"the sampler {self._name} was stopped after {iterations} iterations"
        note = GenMetadata(MetadataType.INFORMATION, MetadataValue.SEE_REF, told)
        if note not in self.notes:
            self.notes.append(note)


SCHEDULE = ("steps", "sampler_name", "scheduler", "denoise")
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
    return sample_custom(
        model,
        noise=first_noise(images, seeds),
        cfg=cfg,
        sampler=settings["solver"].seeded(seeds),
        sigmas=noise_levels(model, **{name: settings[name] for name in SCHEDULE}),
        positive=settings["positive"],
        negative=settings["negative"],
        latent_image=images,
        noise_mask=noise_mask,
        callback=progress,
        disable_pbar=True,
        seed=seeds[0],
    )


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


def step_progress(context: RunContext, part: int, parts: int) -> Progress:
    """Tells of each step of this part, and ends the sampling where the job is cancelled."""

    def after_step(step: int, _denoised: Tensor, _x: Tensor, total: int) -> None:
        if context.cancelled.is_set():
            raise comfy.model_management.InterruptProcessingException
        context.on_step(part * total + min(step + 1, total), parts * total)

    return after_step
