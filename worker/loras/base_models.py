"""What CivitAI calls the model that a LoRA was made for, and the horde's baselines that it fits."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

_SD1 = frozenset({"stable diffusion 1"})
_SD2 = frozenset({"stable diffusion 2"})
_SDXL = frozenset({"stable_diffusion_xl"})
_FLUX = frozenset({"flux_1", "flux_schnell", "flux_dev"})
_Z_IMAGE = frozenset({"z_image_turbo"})
_NONE: frozenset[str] = frozenset()

BASELINES: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "SD 1.4": _SD1,
        "SD 1.5": _SD1,
        "SD 1.5 LCM": _SD1,
        "SD 1.5 Hyper": _SD1,
        "SD 2.0": _SD2,
        "SD 2.0 768": _SD2,
        "SD 2.1": _SD2,
        "SD 2.1 768": _SD2,
        "SD 2.1 Unclip": _SD2,
        "SDXL 0.9": _SDXL,
        "SDXL 1.0": _SDXL,
        "SDXL 1.0 LCM": _SDXL,
        "SDXL Distilled": _SDXL,
        "SDXL Turbo": _SDXL,
        "SDXL Lightning": _SDXL,
        "SDXL Hyper": _SDXL,
        "Pony": _SDXL,
        "Illustrious": _SDXL,
        "NoobAI": _SDXL,
        "Stable Cascade": frozenset({"stable_cascade"}),
        "Flux.1 D": _FLUX,
        "Flux.1 S": _FLUX,
        "Flux.1 Krea": _FLUX,
        "Flux.1 Kontext": _FLUX,
        "Qwen": frozenset({"qwen_image"}),
        "ZImageTurbo": _Z_IMAGE,
        "ZImageBase": _Z_IMAGE,
        "SD 3": _NONE,
        "SD 3.5": _NONE,
        "SD 3.5 Medium": _NONE,
        "SD 3.5 Large": _NONE,
        "SD 3.5 Large Turbo": _NONE,
        "Pony V7": _NONE,
        "AuraFlow": _NONE,
        "Chroma": _NONE,
        "Flux.2 D": _NONE,
        "HiDream": _NONE,
        "Hunyuan 1": _NONE,
        "Hunyuan Video": _NONE,
        "Kolors": _NONE,
        "Lumina": _NONE,
        "PixArt a": _NONE,
        "PixArt E": _NONE,
        "Wan Video": _NONE,
        "Wan Video 1.3B t2v": _NONE,
        "Wan Video 14B t2v": _NONE,
        "Wan Video 2.2 T2V-A14B": _NONE,
    }
)


def may_fit(base_model: str, baseline: str) -> bool:
    """Whether a LoRA for CivitAI's `base_model` may work with a model of the horde's `baseline`.

    A base model that is not in the table may: only the file's own keys tell.
    """
    return base_model not in BASELINES or baseline in BASELINES[base_model]
