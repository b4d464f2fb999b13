"""The horde's samplers, each with the ComfyUI sampler behind it and how that draws noise."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from enum import Enum, StrEnum


class StepNoise(Enum):
    """Where a sampler takes the noise from that it adds between steps."""

    none = "deterministic once the first noise is drawn"
    churn = "none, unless s_churn is above 0: then one generator per image"
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
    align_your_steps = "align_your_steps"
    gits = "gits"


TABLED = frozenset({Scheduler.align_your_steps, Scheduler.gits})  # for some families alone


@dataclass(frozen=True, slots=True)
class Number:
    """An option that is a number from `low` to `high`."""

    low: float
    high: float
    default: float
    keyword: str = ""  # of ComfyUI's function, where that has another name
    is_whole: bool = False

    def accepts(self, value: object) -> bool:
        """Never NaN, nor what is no number."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        is_of_kind = isinstance(value, int) or not self.is_whole
        return is_of_kind and self.low <= value <= self.high

    def __str__(self) -> str:
        kind = "a whole number" if self.is_whole else "a number"
        if math.isinf(self.high):
            return f"{kind} of at least {self.low:g}"
        return f"{kind} from {self.low:g} to {self.high:g}"


@dataclass(frozen=True, slots=True)
class Choice:
    """An option that is one of some words."""

    words: tuple[str, ...]
    default: str
    keyword: str = ""

    def accepts(self, value: object) -> bool:
        return value in self.words

    def __str__(self) -> str:
        return " or ".join(self.words)


Option = Number | Choice
Value = float | str


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplerOptions:
    """What a job asks of its sampler, by the horde's names without `sampler_`; None: the default.

    A sampler has those that its row lists.
    """

    eta: float | None = None
    s_noise: float | None = None
    s_churn: float | None = None
    s_tmin: float | None = None
    s_tmax: float | None = None
    solver_type: str | None = None
    order: int | None = None

    def given(self) -> Iterator[tuple[str, Value]]:
        """Those that are asked for."""
        for name in OPTION_NAMES:
            value: Value | None = getattr(self, name)
            if value is not None:
                yield name, value


USUAL = SamplerOptions()
OPTION_NAMES = tuple(each.name for each in fields(SamplerOptions))
Options = Mapping[str, Option]

_ETA: Options = {"eta": Number(0, 100, 1)}
_S_NOISE: Options = {"s_noise": Number(0, 100, 1)}
_NOISY = {**_ETA, **_S_NOISE}
_CHURN = {
    "s_churn": Number(0, 100, 0),
    "s_tmin": Number(0, 100, 0),
    "s_tmax": Number(0, math.inf, math.inf),
    **_S_NOISE,
}
_MIDPOINT: Options = {"solver_type": Choice(("midpoint", "heun"), "midpoint")}
_HEUN: Options = {"solver_type": Choice(("midpoint", "heun"), "heun")}
_PHI_1: Options = {"solver_type": Choice(("phi_1", "phi_2"), "phi_1")}
_PHI_2: Options = {"solver_type": Choice(("phi_1", "phi_2"), "phi_2")}


def _order(low: int, high: int, default: int, keyword: str = "max_order") -> Options:
    return {"order": Number(low, high, default, keyword, is_whole=True)}


@dataclass(frozen=True, slots=True)
class Sampler:
    """One row of the table below.

    The table is the horde's (its status/sampler_constraints): what a sampler takes as options, and
    what a step of it costs.
    """

    name: str  # the horde's
    comfy_name: str
    step_noise: StepNoise = StepNoise.none
    evaluations: int = 1  # runs of the network in a step
    options: Options = field(default_factory=dict[str, Option])
    batches: bool = True  # False: the step size depends on all images of the batch together
    reads_unguided: bool = False  # CFG++: needs the negative prompt whatever the cfg scale is
    most_flow_eta: float = math.inf  # more may give no numbers with flow models
    refuses: frozenset[Scheduler] = frozenset()  # it diverges on these

    def keywords(self, options: SamplerOptions) -> dict[str, Value]:
        """The options as ComfyUI's function takes them."""
        return {self.options[name].keyword or name: value for name, value in options.given()}

    def __hash__(self) -> int:
        return hash(self.name)


_NONE, _C, _G, _B = StepNoise.none, StepNoise.churn, StepNoise.gaussian, StepNoise.brownian
_NORMAL = frozenset({Scheduler.normal})
_ROWS = (
    Sampler("k_euler", "euler", _C, 1, _CHURN),
    Sampler("k_euler_a", "euler_ancestral", _G, 1, _NOISY, most_flow_eta=2),
    Sampler("k_heun", "heun", _C, 2, _CHURN),
    Sampler("k_dpm_2", "dpm_2", _C, 2, _CHURN),
    Sampler("k_dpm_2_a", "dpm_2_ancestral", _G, 2, _NOISY, most_flow_eta=1),
    Sampler("k_lms", "lms", _NONE, 1, _order(1, 100, 4, "order")),
    Sampler("k_dpm_fast", "dpm_fast", _G),
    Sampler(
        "k_dpm_adaptive",
        "dpm_adaptive",
        _G,
        3,
        {"eta": Number(0, 100, 0), **_S_NOISE, **_order(2, 3, 3, "order")},
        batches=False,
    ),
    Sampler("k_dpmpp_2s_a", "dpmpp_2s_ancestral", _G, 2, _NOISY, most_flow_eta=1),
    Sampler("k_dpmpp_sde", "dpmpp_sde", _B, 2, _NOISY),
    Sampler("k_dpmpp_2m", "dpmpp_2m"),
    Sampler("ddim", "ddim"),
    Sampler("uni_pc", "uni_pc"),
    Sampler("uni_pc_bh2", "uni_pc_bh2"),
    Sampler("plms", "euler", _C),
    Sampler("lcm", "lcm", _G, 1, _S_NOISE),
    Sampler("dpmsolver", "dpmpp_2m"),
    Sampler("dpmpp_2m_sde", "dpmpp_2m_sde", _B, 1, {**_NOISY, **_MIDPOINT}),
    Sampler("dpmpp_3m_sde", "dpmpp_3m_sde", _B, 1, _NOISY, refuses=_NORMAL),
    Sampler("ddpm", "ddpm", _G),
    Sampler("deis", "deis", _NONE, 1, _order(2, 4, 3)),
    Sampler("ipndm", "ipndm", _NONE, 1, _order(2, 4, 4)),
    Sampler("res_multistep", "res_multistep", _G, 1, _S_NOISE),
    Sampler("gradient_estimation", "gradient_estimation"),
    Sampler("heunpp2", "heunpp2", _C, 3, _CHURN),
    Sampler("er_sde", "er_sde", _G, 1, _S_NOISE),
    Sampler("sa_solver", "sa_solver", _G, 1, _S_NOISE),
    Sampler("euler_cfg_pp", "euler_cfg_pp", reads_unguided=True),
    Sampler(
        "euler_ancestral_cfg_pp",
        "euler_ancestral_cfg_pp",
        _G,
        1,
        {"eta": Number(0, 1, 1), "s_noise": Number(0, 10, 1)},
        reads_unguided=True,
    ),
    Sampler(
        "dpmpp_2s_ancestral_cfg_pp",
        "dpmpp_2s_ancestral_cfg_pp",
        _G,
        2,
        _NOISY,
        reads_unguided=True,
    ),
    Sampler("dpmpp_2m_cfg_pp", "dpmpp_2m_cfg_pp", reads_unguided=True),
    Sampler("dpmpp_2m_sde_heun", "dpmpp_2m_sde_heun", _B, 1, {**_NOISY, **_HEUN}),
    Sampler("ipndm_v", "ipndm_v", _NONE, 1, _order(2, 4, 4)),
    Sampler("res_multistep_cfg_pp", "res_multistep_cfg_pp", _G, 1, _S_NOISE, reads_unguided=True),
    Sampler("res_multistep_ancestral", "res_multistep_ancestral", _G, 1, _NOISY),
    Sampler(
        "res_multistep_ancestral_cfg_pp",
        "res_multistep_ancestral_cfg_pp",
        _G,
        1,
        _NOISY,
        reads_unguided=True,
    ),
    Sampler("gradient_estimation_cfg_pp", "gradient_estimation_cfg_pp", reads_unguided=True),
    Sampler("seeds_2", "seeds_2", _G, 2, {**_NOISY, **_PHI_1}),
    Sampler("seeds_3", "seeds_3", _G, 3, _NOISY),
    Sampler("sa_solver_pece", "sa_solver_pece", _G, 2, _S_NOISE),
    Sampler("exp_heun_2_x0", "exp_heun_2_x0", _NONE, 2, _PHI_2),
    Sampler("exp_heun_2_x0_sde", "exp_heun_2_x0_sde", _G, 2, {**_NOISY, **_PHI_2}),
)
SAMPLERS = {row.name: row for row in _ROWS}
STEP_NOISE = {row.comfy_name: row.step_noise for row in _ROWS}
UNBATCHABLE = frozenset(row.comfy_name for row in _ROWS if not row.batches)
ADAPTIVE = SAMPLERS["k_dpm_adaptive"]


def most_iterations(steps: int) -> int:
    """After so many iterations dpm_adaptive, which chooses its steps itself, is stopped.

    The horde's sampler execution contract, version 1.0.
    """
    return math.ceil(1.25 * steps)


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
