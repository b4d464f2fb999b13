"""What the server believes a bridge can do, by the name and version in its `bridge_agent`.

A version has its own features and those of every lower one. An unknown name has none: it never
sees a request that wants its result uploaded (`r2`, the default), and is not told so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from worker.sandbox.wire import GenerateBody

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
        13: frozenset(
            {
                "4xNomos8kSC", "4xLSDIRplus", "4xNomosWebPhoto_RealPLKSR",
                "4xNomos2_realplksr_dysample", "4xNomos2_hq_dat2", "2xModernSpanimationV1",
                "GFPGANv1.3", "RestoreFormer",
            }
        ),
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
    },
    CLASSIC: {
        11: _COMMON_SAMPLERS,
        12: frozenset({"k_dpmpp_sde"}),
        17: frozenset({"DDIM!"}),
    },
    WEBUI: {1: (_COMMON_SAMPLERS - {"dpmsolver"}) | {"k_dpmpp_sde", "DDIM!"}},
}

_KNOWN_VERSION = {REGEN: 13, CLASSIC: 24}


class BridgeAgent(NamedTuple):
    name: str
    version: int

    @classmethod
    def parse(cls, text: str) -> BridgeAgent:
        """ "name:version:url"; "13" and "13.0.0" are both version 13, nonsense is version 0."""
        name, _, rest = text.partition(":")
        major = rest.partition(":")[0].partition(".")[0]
        return cls(name, int(major) if major.isdecimal() else 0)

    @property
    def features(self) -> frozenset[str]:
        return self._granted(FEATURES.get(self.name, {}))

    def samples(self, sampler: str, karras: bool) -> bool:
        # The server judges the samplers of a bridge that it doesn't know as the classic worker's.
        agent = self if self.name in SAMPLERS else BridgeAgent(CLASSIC, 23)
        granted = agent._granted(SAMPLERS[agent.name])
        return sampler in granted or (not karras and f"{sampler}!" in granted)

    @property
    def kudos_factor(self) -> float:
        """Share of a reward that is credited: the newest known version gets all of it."""
        if self.name not in _KNOWN_VERSION:
            return 0.75
        return 1.0 if self.version >= _KNOWN_VERSION[self.name] else 0.9

    def _granted(self, table: Mapping[int, frozenset[str]]) -> frozenset[str]:
        rows = [row for version, row in table.items() if version <= self.version]
        return frozenset[str]().union(*rows)


def needed_features(request: GenerateBody) -> Iterator[str]:
    """Features that a bridge has to have for this request, besides `r2` and its sampler."""
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
    if request.extra_source_images:
        yield "extra_source_images"
    yield from params.post_processing


def shortcomings(agent: BridgeAgent, request: GenerateBody) -> int:
    """How much the bridge lacks, as `skipped.bridge_version` counts it: a sampler counts twice."""
    lacking = set(needed_features(request)) - agent.features
    params = request.params
    return len(lacking) + (0 if agent.samples(params.sampler_name, params.karras) else 2)
