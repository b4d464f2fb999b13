"""What the server believes a bridge can do, by the name and version in its `bridge_agent`.

A version has its own features and those of every lower one. An unknown name has none: it never
sees a request that wants its result uploaded (`r2`, the default), and is not told so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple, get_args

from worker.sandbox.wire import (
    EXTENDED_CONTROL_TYPES,
    ExtendedSampler,
    GenerateBody,
    KnobSampler,
    Params,
)

REGEN = "AI Horde Worker reGen"
CLASSIC = "AI Horde Worker"
WEBUI = "SD-WebUI Stable Horde Worker Bridge"

_COMMON_SAMPLERS = frozenset(
    {
        "k_lms", "k_heun", "k_euler", "k_euler_a", "k_dpm_2", "k_dpm_2_a", "k_dpm_fast",
        "k_dpm_adaptive", "k_dpmpp_2s_a", "k_dpmpp_2m", "dpmsolver",
    }
)  # fmt: skip

FEATURES: Mapping[str, Mapping[int, frozenset[str]]] = {
    REGEN: {
        1: frozenset(
            {
                "img2img", "painting", "r2", "r2_source", "controlnet", "return_control_map",
                "image_is_control", "hires_fix", "clip_skip", "tiling", "GFPGAN", "CodeFormers",
                "RealESRGAN_x4plus", "RealESRGAN_x2plus", "RealESRGAN_x4plus_anime_6B",
                "NMKD_Siax", "4x_AnimeSharp", "strip_background",
            }
        ),
        2: frozenset({"loras", "tis"}),
        3: frozenset({"lora_versions"}),
        5: frozenset({"extra_source_images"}),
        7: frozenset({"workflow", "extra_texts"}),
        8: frozenset({"transparent"}),
        9: frozenset({"flux"}),
        13: frozenset(
            {
                "4xNomos8kSC", "4xLSDIRplus", "4xNomosWebPhoto_RealPLKSR",
                "4xNomos2_realplksr_dysample", "4xNomos2_hq_dat2", "2xModernSpanimationV1",
                "GFPGANv1.3", "RestoreFormer",
            }
        ),
        17: frozenset(
            {
                "extended_controlnet", "scheduler", "solver_options", "sigma_generators",
                "flow_shift", "solver_knob_samplers",
            }
        ),
        18: frozenset({"control_strength"}),
    },
    CLASSIC: {
        3: frozenset({"img2img"}),
        4: frozenset({"painting"}),
        7: frozenset({"GFPGAN", "RealESRGAN_x4plus"}),
        8: frozenset({"r2"}),
        9: frozenset({"CodeFormers"}),
        13: frozenset({"hires_fix", "clip_skip"}),
        14: frozenset({"r2_source"}),
        15: frozenset({"controlnet"}),
        18: frozenset({"strip_background", "return_control_map", "RealESRGAN_x4plus_anime_6B"}),
        19: frozenset({"NMKD_Siax", "4x_AnimeSharp"}),
        21: frozenset({"RealESRGAN_x2plus"}),
        22: frozenset({"loras"}),
        23: frozenset({"image_is_control"}),
        24: frozenset({"tis"}),
    },
    WEBUI: {
        1: frozenset({"painting", "r2", "CodeFormers"}),
        2: frozenset({"tiling"}),
        3: frozenset({"r2_source"}),
        4: frozenset({"clip_skip"}),
    },
}  # fmt: skip

# A sampler ending in "!" is offered only for requests without karras.
SAMPLERS: Mapping[str, Mapping[int, frozenset[str]]] = {
    REGEN: {
        2: _COMMON_SAMPLERS | {"k_dpmpp_sde", "DDIM"},
        3: frozenset({"lcm"}),
        17: frozenset({*get_args(ExtendedSampler), *get_args(KnobSampler)}),
    },
    CLASSIC: {
        11: _COMMON_SAMPLERS,
        12: frozenset({"k_dpmpp_sde"}),
        17: frozenset({"DDIM!"}),
    },
    WEBUI: {1: (_COMMON_SAMPLERS - {"dpmsolver"}) | {"k_dpmpp_sde", "DDIM!"}},
}

_SD1, _SDXL = frozenset({"stable_diffusion_1"}), frozenset({"stable_diffusion_xl"})
_SD2 = frozenset({"stable_diffusion_2", "stable_diffusion_2_512", "stable_diffusion_2_768"})
FLUX = frozenset({"flux_1", "flux_schnell", "flux_dev"})

# On which baselines a bridge renders a feature at all, and since when.
ON_BASELINES: Mapping[str, Mapping[str, Mapping[int, frozenset[str]]]] = {
    REGEN: {
        "hires_fix": {1: _SD1 | _SD2 | _SDXL, 6: frozenset({"stable_cascade"})},
        "controlnet": {1: _SD1 | _SD2},
        "transparent": {8: _SD1 | _SDXL},
        "flow_shift": {17: FLUX | {"qwen_image"}},
    },
    CLASSIC: {"hires_fix": {13: _SD1 | _SD2}, "controlnet": {15: _SD1 | _SD2}},
}
_NOT_ON_SD2 = frozenset({"normal", "mlsd", "hough"})  # control types

OLD_SCHEDULES = frozenset({"normal", "karras"})  # what `karras` says, too
SIGMA_GENERATORS = frozenset({"align_your_steps", "gits"})

NEWEST_GATE = max(FEATURES[REGEN])
GATE_OF_5_1_5 = 13


class BridgeAgent(NamedTuple):
    """`newest`: the highest version of reGen that the server knows."""

    name: str
    version: int
    newest: int = NEWEST_GATE

    @classmethod
    def parse(cls, text: str, newest: int = NEWEST_GATE) -> BridgeAgent:
        """ "name:version:url"; "13" and "13.0.0" are both version 13, nonsense is version 0."""
        name, _, rest = text.partition(":")
        major = rest.partition(":")[0].partition(".")[0]
        return cls(name, int(major) if major.isdecimal() else 0, newest)

    @property
    def features(self) -> frozenset[str]:
        return self._granted(FEATURES.get(self.name, {}))

    def samples(self, sampler: str, karras: bool) -> bool:
        # The server judges the samplers of a bridge that it doesn't know as the classic worker's.
        agent = self if self.name in SAMPLERS else BridgeAgent(CLASSIC, 23, self.newest)
        granted = agent._granted(SAMPLERS[agent.name])
        return sampler in granted or (not karras and f"{sampler}!" in granted)

    def renders(self, params: Params, baseline: str) -> bool:
        """Whether a model of this baseline can do what is asked for, with this bridge."""
        if baseline in _SD2 and params.control_type in _NOT_ON_SD2:
            return False
        if params.scheduler in SIGMA_GENERATORS and baseline not in _SD1 | _SDXL:
            return False
        tables = ON_BASELINES.get(self.name, {})
        return all(
            baseline in self._granted(tables.get(feature, {}))
            for feature in _on_baseline_features(params)
        )

    @property
    def kudos_factor(self) -> float:
        """Share of a reward that is credited: the newest known version gets all of it."""
        if self.name not in (REGEN, CLASSIC):
            return 0.75
        return 1.0 if self.version >= max(self._known(FEATURES[self.name])) else 0.9

    def _granted(self, table: Mapping[int, frozenset[str]]) -> frozenset[str]:
        rows = [table[version] for version in self._known(table) if version <= self.version]
        return frozenset[str]().union(*rows)

    def _known(self, table: Mapping[int, frozenset[str]]) -> list[int]:
        return [version for version in table if self.name != REGEN or version <= self.newest]


def renderable(params: Params, baseline: str) -> bool:
    """Whether any bridge at all can do what is asked for with a model of this baseline."""
    newest = (BridgeAgent(name, max(FEATURES[name])) for name in ON_BASELINES)
    return any(agent.renders(params, baseline) for agent in newest)


def _on_baseline_features(params: Params) -> Iterator[str]:
    if params.control_type is not None:
        yield "controlnet"
    if params.hires_fix:
        yield "hires_fix"
    if params.transparent:
        yield "transparent"
    if params.flow_shift is not None:
        yield "flow_shift"


def needed_features(request: GenerateBody) -> Iterator[str]:
    """Features that a bridge has to have for this request, besides `r2`, its sampler, and those
    that it is refused for in silence."""
    params = request.params
    if request.source_image is not None:
        yield "painting" if request.paints else "img2img"
    for switch in ("hires_fix", "tiling", "transparent", "return_control_map", "image_is_control"):
        if getattr(params, switch):
            yield switch
    for option in ("loras", "tis", "workflow", "extra_texts"):
        if getattr(params, option):
            yield option
    if params.control_type is not None:
        yield "controlnet"
    if params.clip_skip is not None and params.clip_skip > 1:
        yield "clip_skip"
    if any(lora.is_version for lora in params.loras):
        yield "lora_versions"
    yield from _of_gate_17(params)
    if params.control_strength is not None:
        yield "control_strength"
    yield from params.post_processing


def _of_gate_17(params: Params) -> Iterator[str]:
    if params.control_type in EXTENDED_CONTROL_TYPES:
        yield "extended_controlnet"
    if params.scheduler in SIGMA_GENERATORS:
        yield "sigma_generators"
    elif params.scheduler is not None and params.scheduler not in OLD_SCHEDULES:
        yield "scheduler"
    if params.has_options:
        yield "solver_options"
    if params.flow_shift is not None:
        yield "flow_shift"
    if params.sampler_name in get_args(KnobSampler):
        yield "solver_knob_samplers"


def shortcomings(agent: BridgeAgent, request: GenerateBody) -> int:
    """How much the bridge lacks, as `skipped.bridge_version` counts it.

    A sampler counts twice, and so do LoRAs.
    """
    lacking = set(needed_features(request)) - agent.features
    params = request.params
    sampler = 0 if agent.samples(params.sampler_name, params.karras) else 2
    return len(lacking) + ("loras" in lacking) + sampler
