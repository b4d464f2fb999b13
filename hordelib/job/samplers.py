"""The horde's samplers, each with the ComfyUI sampler behind it and how that draws noise."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from enum import Enum, StrEnum


class StepNoise(Enum):
    """Where a sampler takes the noise from that it adds between steps."""

    none = "deterministic once the first noise is drawn"
    gaussian = "one generator per image, seeded with the image's seed"
    brownian = "one Brownian tree per image, seeded with the image's seed"


class Scheduler(StrEnum):
    """Spacing of the noise levels; ComfyUI's names."""

    normal = "normal"
    karras = "karras"
    simple = "simple"
    sgm_uniform = "sgm_uniform"
    ddim_uniform = "ddim_uniform"
    exponential = "exponential"
    beta = "beta"
    linear_quadratic = "linear_quadratic"
    kl_optimal = "kl_optimal"


@dataclass(frozen=True, slots=True)
class Sampler:
    """One row of the table below."""

    name: str  # the horde's
    comfy_name: str
    step_noise: StepNoise = StepNoise.none
    batches: bool = True  # False: the step size depends on all images of the batch together


_ROWS = (
    Sampler("k_euler", "euler"),
    Sampler("k_euler_a", "euler_ancestral", StepNoise.gaussian),
    Sampler("k_heun", "heun"),
    Sampler("k_dpm_2", "dpm_2"),
    Sampler("k_dpm_2_a", "dpm_2_ancestral", StepNoise.gaussian),
    Sampler("k_lms", "lms"),
    Sampler("k_dpm_fast", "dpm_fast"),
    Sampler("k_dpm_adaptive", "dpm_adaptive", batches=False),
    Sampler("k_dpmpp_2s_a", "dpmpp_2s_ancestral", StepNoise.gaussian),
    Sampler("k_dpmpp_sde", "dpmpp_sde", StepNoise.brownian),
    Sampler("k_dpmpp_2m", "dpmpp_2m"),
    Sampler("ddim", "ddim"),
    Sampler("uni_pc", "uni_pc"),
    Sampler("uni_pc_bh2", "uni_pc_bh2"),
    Sampler("plms", "euler"),
    Sampler("lcm", "lcm", StepNoise.gaussian),
    Sampler("dpmsolver", "dpmpp_2m"),
    Sampler("dpmpp_2m_sde", "dpmpp_2m_sde", StepNoise.brownian),
)
SAMPLERS = {row.name: row for row in _ROWS}
STEP_NOISE = {row.comfy_name: row.step_noise for row in _ROWS}
UNBATCHABLE = frozenset(row.comfy_name for row in _ROWS if not row.batches)


def find_sampler(name: str) -> Sampler | None:
    """The row for a horde sampler name in any case (the server writes `DDIM`); None: unknown."""
    return SAMPLERS.get(name.lower())


def nearest_sampler(name: str) -> Sampler:
    """The known sampler that an unknown name resembles most; Euler, the plainest, if none does."""
    similar = get_close_matches(_plain(name), _PLAIN_NAMES, n=1)
    return _PLAIN_NAMES[similar[0]] if similar else SAMPLERS["k_euler"]


def _plain(name: str) -> str:
    return name.lower().removeprefix("k_")


_PLAIN_NAMES = {_plain(name): row for row in reversed(_ROWS) for name in (row.comfy_name, row.name)}
