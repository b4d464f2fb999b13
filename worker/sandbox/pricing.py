"""Kudos, time limits and batch sizes.

The server prices a request with a small neural network. In its place stands a formula that was
fitted to 18 rewards that the server paid. It is at most 3.8 % off (1024², 30 steps); a test
compares all of them.

    kudos = (1.258 + 0.795 · p^1.741 + 0.177 · steps · p^0.437) · factors + extras
    p = pixels / 512²

Everything else here is the server's own arithmetic.
"""

from __future__ import annotations

from worker.sandbox.reference import ReferenceModel
from worker.sandbox.wire import GenerateBody, Params

BASIS_PIXELS = 512 * 512
ACCEPTANCE_KUDOS = 3

SAMPLER_FACTOR = {
    "k_heun": 1.7, "k_dpm_2": 1.7, "k_dpm_2_a": 1.7, "k_dpmpp_2s_a": 1.7, "k_dpmpp_sde": 1.7,
    "k_dpm_adaptive": 1.77,
}  # fmt: skip
SECOND_ORDER = frozenset({"k_heun", "k_dpm_2", "k_dpm_2_a", "k_dpmpp_2s_a", "k_dpmpp_sde"})
BASELINE_FACTOR = {
    "stable_diffusion_xl": 2, "stable_cascade": 4, "flux_1": 8, "z_image_turbo": 8,
    "qwen_image": 12,
}  # fmt: skip
LARGE_BASELINES = frozenset({"flux_1", "qwen_image", "z_image_turbo"})
FACE_FIXERS = frozenset({"GFPGAN", "GFPGANv1.3", "CodeFormers", "RestoreFormer"})
UPSCALERS = frozenset(
    {
        "RealESRGAN_x4plus", "RealESRGAN_x2plus", "RealESRGAN_x4plus_anime_6B", "NMKD_Siax",
        "4x_AnimeSharp", "4xNomos8kSC", "4xLSDIRplus", "4xNomosWebPhoto_RealPLKSR",
        "4xNomos2_realplksr_dysample", "4xNomos2_hq_dat2", "2xModernSpanimationV1",
    }
)  # fmt: skip
HEAVY_POST_PROCESSORS = frozenset(
    {
        "RealESRGAN_x4plus", "RealESRGAN_x4plus_anime_6B", "NMKD_Siax", "4x_AnimeSharp",
        "CodeFormers", "4xNomos8kSC", "4xLSDIRplus", "4xNomos2_hq_dat2", "RestoreFormer",
    }
)  # fmt: skip


def kudos(params: Params) -> float:
    """Kudos of one image, before the factor of its model."""
    size = params.pixels / BASIS_PIXELS
    base = 1.258 + 0.795 * size**1.741 + 0.177 * params.effective_steps * size**0.437
    return round(base * _effort(params) + _extras(params), 2)


def _effort(params: Params) -> float:
    effort = SAMPLER_FACTOR.get(params.sampler_name, 1.0)
    if params.hires_fix:
        effort *= 1.39
    if params.control_type is not None:
        effort *= 1.8
    if params.denoising_strength is not None:
        effort *= 1 - 0.26 * (1 - params.denoising_strength)
    return effort


def _extras(params: Params) -> float:
    post_processing = params.post_processing
    faces = len(FACE_FIXERS.intersection(post_processing))
    upscales = len(UPSCALERS.intersection(post_processing))
    inversions = 1 if params.tis else 0
    return 1.58 * faces + 2.78 * upscales + 3 * len(params.loras) + inversions


def model_factor(model: ReferenceModel, params: Params) -> int:
    """By how much the model's baseline multiplies the reward."""
    match baseline_of(model):
        case "stable_diffusion_xl" if params.workflow == "qr_code":
            return 4
        case "stable_cascade" if params.hires_fix:
            return 7
        case baseline:
            return BASELINE_FACTOR.get(baseline, 1)


def baseline_of(model: ReferenceModel) -> str:
    """The reference writes some baselines with spaces: both spellings are one."""
    return model.baseline.replace(" ", "_")


def reward(params: Params, model: ReferenceModel) -> float:
    return round(kudos(params) * model_factor(model, params), 2)


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


def time_to_live(
    params: Params, baselines: set[str], *, extra_slow: bool, minimum_seconds: int
) -> int:
    """Seconds that a worker has for one image of the request, whatever the batch."""
    steps = params.effective_steps
    if params.sampler_name in SECOND_ORDER:
        steps *= 2
    elif params.sampler_name == "k_dpm_adaptive":
        steps = 40
    seconds = 30 + 2 * steps * params.pixels / BASIS_PIXELS
    if params.control_type is not None:
        seconds *= 2
    if baselines & LARGE_BASELINES:
        seconds *= 3
    return int(max(seconds, minimum_seconds)) * (3 if extra_slow else 1)


def batch_size(request: GenerateBody, *, waiting: int, amount: int, max_pixels: int) -> int:
    """How many images one pop hands out: what is left, wanted, and safe at the worker's size."""
    params = request.params
    if request.disable_batching or params.workflow == "qr_code":
        return 1
    post_processing = params.post_processing
    load = params.pixels * (1 + 0.4 * len(post_processing))
    if params.transparent or HEAVY_POST_PROCESSORS.intersection(post_processing):
        load *= 1.8
    return min(waiting, amount, max(1, round(max_pixels / 3.5 * amount / load)))
