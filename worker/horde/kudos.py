"""What the horde pays for an image.

The server prices a request with a small neural network. In its place stands a formula that was
fitted to 18 rewards that the server paid, and to its prices of samplers. It is at most 5.4 % off
(k_dpmpp_2m, 30 steps); a test compares all of them.

    kudos = (1.258 + 0.795 · p^1.741 + 0.177 · steps · p^0.437) · factors + extras
    p = pixels / 512²

The worker shows by it what a job will bring, and the sandbox pays by it.
"""

from __future__ import annotations

from dataclasses import dataclass

from hordelib.job.families import Family
from hordelib.job.params import GenerationParams, TextOnly

BASIS_PIXELS = 512 * 512
# Kudos of an image of 512 x 512 and 50 steps by its sampler, as the server has frozen them. A newer
# sampler is priced as an older one.
PLAIN_PRICE = 10.98  # k_euler_a's, by which the formula was fitted
USUAL_PRICE = 11.0  # k_euler's, and of those that are not here
SAMPLER_PRICE = {
    "k_euler_a": PLAIN_PRICE, "euler_ancestral_cfg_pp": PLAIN_PRICE,
    "k_heun": 19.02, "k_dpm_2": 16.82, "k_dpm_2_a": 17.55, "k_lms": 11.19,
    "k_dpm_fast": 11.48, "k_dpm_adaptive": 16.2, "k_dpmpp_2s_a": 16.41, "k_dpmpp_2m": 10.64,
    "dpmsolver": 10.64, "k_dpmpp_sde": 19.53, "ddim": 15.02, "uni_pc": 15.04, "uni_pc_bh2": 14.5,
    **dict.fromkeys(
        (
            "dpmpp_2m_sde", "dpmpp_3m_sde", "deis", "ipndm", "res_multistep", "sa_solver",
            "dpmpp_2m_cfg_pp", "dpmpp_2m_sde_heun", "ipndm_v", "res_multistep_cfg_pp",
            "res_multistep_ancestral", "res_multistep_ancestral_cfg_pp",
        ),
        10.64,
    ),
    **dict.fromkeys(("heunpp2", "seeds_3", "exp_heun_2_x0"), 19.02),
    "dpmpp_2s_ancestral_cfg_pp": 16.41,
    **dict.fromkeys(("seeds_2", "sa_solver_pece", "exp_heun_2_x0_sde"), 19.53),
}  # fmt: skip
# k_dpm_adaptive chooses its steps itself: its price grows less with them than the others'. So as to
# come near to the two prices that are known, 13.46 at 30 steps and 16.2 at 50.
ADAPTIVE, ADAPTIVE_EXPONENT = "k_dpm_adaptive", 0.4
PRICED_STEPS = 50
BASELINE_FACTOR = {
    "stable_diffusion_xl": 2, "stable_cascade": 4, "flux_1": 8, "flux_schnell": 8, "flux_dev": 8,
    "z_image_turbo": 8, "krea2_turbo": 8, "anima": 8, "qwen_image": 12,
}  # fmt: skip
FACE_FIXERS = frozenset({"GFPGAN", "GFPGANv1.3", "CodeFormers", "RestoreFormer"})
UPSCALERS = frozenset(
    {
        "RealESRGAN_x4plus", "RealESRGAN_x2plus", "RealESRGAN_x4plus_anime_6B", "NMKD_Siax",
        "4x_AnimeSharp", "4xNomos8kSC", "4xLSDIRplus", "4xNomosWebPhoto_RealPLKSR",
        "4xNomos2_realplksr_dysample", "4xNomos2_hq_dat2", "2xModernSpanimationV1",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class PricedImage:
    """What the price of an image depends on; names are those of the API."""

    pixels: int
    steps: int
    sampler_name: str
    hires_fix: bool
    is_controlled: bool
    denoising_strength: float | None  # None: it starts from no picture
    post_processing: tuple[str, ...]
    loras: int
    has_inversions: bool
    is_qr_code: bool


def estimated_kudos(params: GenerationParams, family: Family) -> float:
    """Of all the job's images, a few per cent off."""
    image = PricedImage(
        pixels=params.width * params.height,
        steps=params.steps,
        sampler_name=params.sampler.name,
        hires_fix=params.hires_fix,
        is_controlled=params.control is not None,
        denoising_strength=None if isinstance(params.source, TextOnly) else params.denoise,
        post_processing=tuple(processor.name for processor in params.post_processing),
        loras=len(params.loras),
        has_inversions="embedding:" in params.prompt + params.negative_prompt,
        is_qr_code=params.qr_code is not None,
    )
    return params.images * image_reward(image, family.name)


def image_reward(image: PricedImage, baseline: str) -> float:
    """Kudos of one image, made by a model of this baseline."""
    return round(image_kudos(image) * _model_factor(image, baseline.replace(" ", "_")), 2)


def image_kudos(image: PricedImage) -> float:
    """Kudos of one image, before the factor of its model."""
    size = image.pixels / BASIS_PIXELS
    base = 1.258 + 0.795 * size**1.741 + 0.177 * image.steps * size**0.437
    return round(base * _effort(image) + _extras(image), 2)


def _effort(image: PricedImage) -> float:
    name = image.sampler_name.lower()
    effort = SAMPLER_PRICE.get(name, USUAL_PRICE) / PLAIN_PRICE
    if name == ADAPTIVE:
        effort *= (PRICED_STEPS / image.steps) ** ADAPTIVE_EXPONENT
    if image.hires_fix:
        effort *= 1.39
    if image.is_controlled:
        effort *= 1.8
    if image.denoising_strength is not None:
        effort *= 1 - 0.26 * (1 - image.denoising_strength)
    return effort


def _extras(image: PricedImage) -> float:
    faces = len(FACE_FIXERS.intersection(image.post_processing))
    upscales = len(UPSCALERS.intersection(image.post_processing))
    return 1.58 * faces + 2.78 * upscales + 3 * image.loras + image.has_inversions


def _model_factor(image: PricedImage, baseline: str) -> int:
    """By how much the model's baseline multiplies the reward."""
    match baseline:
        case "stable_diffusion_xl" if image.is_qr_code:
            return 4
        case "stable_cascade" if image.hires_fix:
            return 7
        case _:
            return BASELINE_FACTOR.get(baseline, 1)
