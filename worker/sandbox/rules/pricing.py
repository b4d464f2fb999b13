"""Costs, time limits and batch sizes, by the server's own arithmetic.

The kudos of an image are in worker.horde.kudos.
"""

from __future__ import annotations

import math

from worker.horde.kudos import BASIS_PIXELS, UPSCALERS, PricedImage, image_kudos, image_reward
from worker.sandbox.records import ReferenceModel
from worker.sandbox.rules.sampling import sampler_work
from worker.sandbox.wire import GenerateBody, Params

ACCEPTANCE_KUDOS = 3

# Baselines whose images take longer than others of their size: so much more time is given, and so
# many fewer make a batch.
_FLUX = ("flux_1", "flux_schnell", "flux_dev")
_EIGHT = ("z_image_turbo", "krea2_turbo", "anima")
TTL_FACTOR = {**dict.fromkeys((*_FLUX, *_EIGHT), 3), "qwen_image": 3}
BATCH_DIVISOR = {**dict.fromkeys(_FLUX, 5), **dict.fromkeys(_EIGHT, 8), "qwen_image": 10}
HEAVY_POST_PROCESSORS = frozenset(
    {
        "RealESRGAN_x4plus", "RealESRGAN_x4plus_anime_6B", "NMKD_Siax", "4x_AnimeSharp",
        "CodeFormers", "4xNomos8kSC", "4xLSDIRplus", "4xNomos2_hq_dat2", "RestoreFormer",
    }
)  # fmt: skip


def kudos(params: Params) -> float:
    """Kudos of one image, before the factor of its model."""
    return image_kudos(_priced(params))


def baseline_of(model: ReferenceModel) -> str:
    """The reference writes some baselines with spaces: both spellings are one."""
    return model.baseline.replace(" ", "_")


def reward(params: Params, model: ReferenceModel) -> float:
    return image_reward(_priced(params), baseline_of(model))


def _priced(params: Params) -> PricedImage:
    return PricedImage(
        pixels=params.pixels,
        steps=params.effective_steps,
        sampler_name=params.sampler_name,
        hires_fix=params.hires_fix,
        is_controlled=params.control_type is not None,
        denoising_strength=params.denoising_strength,
        post_processing=params.post_processing,
        loras=len(params.loras),
        has_inversions=bool(params.tis),
        is_qr_code=params.workflow == "qr_code",
    )


def image_cost(request: GenerateBody, model: ReferenceModel) -> int:
    """Kudos that a client pays for one delivered image."""
    factor = 1.0
    if request.source_image is not None:
        factor *= 1.3
    factor *= 1.05 ** len(UPSCALERS.intersection(request.params.post_processing))
    if not request.slow_workers:
        factor *= 1.2
    if request.worker_blacklist:
        factor *= 1.1
    return round(reward(request.params, model) * factor + 1)


def estimate(request: GenerateBody, model: ReferenceModel) -> float:
    """The answer to a dry run, and what "kudos up front" asks for."""
    return float(image_cost(request, model) * request.params.n + 1)


def time_to_live(params: Params, baseline: str, *, extra_slow: bool, minimum_seconds: int) -> int:
    """Seconds that a worker has for one image of the request, whatever the batch.

    `baseline` is that of the model that was handed out.
    """
    seconds = 30 + 2 * sampler_work(params) * params.pixels / BASIS_PIXELS
    if params.control_type is not None:
        seconds *= 2
    seconds = max(seconds * TTL_FACTOR.get(baseline, 1), minimum_seconds)
    return math.ceil(seconds * (3 if extra_slow else 1))


def batch_size(
    request: GenerateBody, baseline: str, *, waiting: int, amount: int, max_pixels: int
) -> int:
    """How many images one pop hands out: what is left, wanted, and safe at the worker's size."""
    params = request.params
    if request.disable_batching or params.workflow == "qr_code":
        return 1
    post_processing = params.post_processing
    load = params.pixels * (1 + 0.4 * len(post_processing)) * BATCH_DIVISOR.get(baseline, 1)
    if params.transparent or HEAVY_POST_PROCESSORS.intersection(post_processing):
        load *= 1.8
    return min(waiting, amount, max(1, round(max_pixels / 3.5 * amount / load)))
