"""Samplers as the server knows them: what a step of each costs, and which options each has."""

from __future__ import annotations

import math
from collections.abc import Mapping

from worker.sandbox.errors import Refusal
from worker.sandbox.wire import Params

# Runs of the network a step; samplers that are not here need one.
SAMPLER_WORK = {
    "k_heun": 2, "k_dpm_2": 2, "k_dpm_2_a": 2, "k_dpmpp_2s_a": 2, "k_dpmpp_sde": 2,
    "dpmpp_2s_ancestral_cfg_pp": 2, "seeds_2": 2, "sa_solver_pece": 2, "exp_heun_2_x0": 2,
    "exp_heun_2_x0_sde": 2, "heunpp2": 3, "seeds_3": 3,
}  # fmt: skip
ADAPTIVE = "k_dpm_adaptive"
ADAPTIVE_WORK = 40  # it chooses its steps itself: an estimate
ADAPTIVE_BOUND = 1.25  # iterations to a step, of workers that promise to stop there

# The least and the most of every option that is a number; others, a sampler does not have.
Limits = Mapping[str, tuple[float, float]]
_ETA: Limits = {"eta": (0, 100)}
_S_NOISE: Limits = {"s_noise": (0, 100)}
_CHURN: Limits = {"s_churn": (0, 100), "s_tmin": (0, 100), "s_tmax": (0, math.inf), **_S_NOISE}
_STOCHASTIC: Limits = {**_ETA, **_S_NOISE}
_ORDER: Limits = {"order": (2, 4)}
LIMITS: Mapping[str, Limits] = {
    **dict.fromkeys(("k_euler", "k_heun", "k_dpm_2", "heunpp2"), _CHURN),
    **dict.fromkeys(
        (
            "k_euler_a", "k_dpm_2_a", "k_dpmpp_2s_a", "k_dpmpp_sde", "dpmpp_2m_sde",
            "dpmpp_3m_sde", "dpmpp_2s_ancestral_cfg_pp", "dpmpp_2m_sde_heun",
            "res_multistep_ancestral", "res_multistep_ancestral_cfg_pp", "seeds_2", "seeds_3",
            "exp_heun_2_x0_sde",
        ),
        _STOCHASTIC,
    ),
    **dict.fromkeys(
        ("lcm", "res_multistep", "res_multistep_cfg_pp", "er_sde", "sa_solver", "sa_solver_pece"),
        _S_NOISE,
    ),
    **dict.fromkeys(("deis", "ipndm", "ipndm_v"), _ORDER),
    "euler_ancestral_cfg_pp": {"eta": (0, 1), "s_noise": (0, 10)},
    "k_lms": {"order": (1, 100)},
    ADAPTIVE: {**_STOCHASTIC, "order": (2, 3)},
}  # fmt: skip
SOLVER_TYPES: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(("dpmpp_2m_sde", "dpmpp_2m_sde_heun"), frozenset({"midpoint", "heun"})),
    **dict.fromkeys(
        ("seeds_2", "exp_heun_2_x0", "exp_heun_2_x0_sde"), frozenset({"phi_1", "phi_2"})
    ),
}
_NUMBERS = ("eta", "s_noise", "s_churn", "s_tmin", "s_tmax", "order")


def check_options(params: Params) -> None:
    """Raises Refusal for an option that the sampler lacks, or has in other limits."""
    name = params.sampler_name
    for option in _NUMBERS:
        _check(name, f"sampler_{option}", getattr(params, f"sampler_{option}"), option)
    if params.sampler_solver_type is None:
        return
    if name not in SOLVER_TYPES:
        raise Refusal("SamplerKnobInapplicable", sampler=name, option="sampler_solver_type")
    if params.sampler_solver_type not in SOLVER_TYPES[name]:
        raise Refusal("SamplerSolverTypeUnsupported", sampler=name)


def _check(sampler: str, key: str, value: float | None, option: str) -> None:
    if value is None:
        return
    limits = LIMITS.get(sampler, {}).get(option)
    if limits is None:
        raise Refusal("SamplerKnobInapplicable", sampler=sampler, option=key)
    if not limits[0] <= value <= limits[1]:
        raise Refusal("SamplerKnobOutOfRange", sampler=sampler, option=key)


def sampler_work(params: Params) -> int:
    """Runs of the network of one image, as far as they can be known."""
    if params.sampler_name == ADAPTIVE:
        return ADAPTIVE_WORK
    return params.effective_steps * SAMPLER_WORK.get(params.sampler_name, 1)


def most_sampler_work(params: Params, *, bounds_adaptive_solvers: bool) -> float:
    """Runs of the network at most; endless where nothing bounds them."""
    if params.sampler_name != ADAPTIVE:
        return sampler_work(params)
    if not bounds_adaptive_solvers:
        return math.inf
    return math.ceil(ADAPTIVE_BOUND * params.effective_steps) * (params.sampler_order or 3)
