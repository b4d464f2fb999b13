"""In how many bytes ComfyUI will keep and compute the numbers of a model, before it can be asked.

Its choice follows the card: `unet_dtype`, `unet_manual_cast` and `vae_dtype` of
comfy/model_management.py, with `supported_inference_dtypes` of comfy/supported_models.py and
`working_dtypes` of comfy/sd.py. Once a model is loaded, ComfyUI's own answer counts.
"""

from __future__ import annotations

from dataclasses import dataclass

from hordelib.job.families import FAMILIES, Family

AMPERE, VOLTA, PASCAL, ADA = (8, 0), (7, 0), (6, 0), (8, 9)
# Turing without tensor cores, where half precision gives no numbers.
NO_HALVES = (
    *("1660", "1650", "1630", "T500", "T550", "T600", "MX550", "MX450", "CMP 30HX"),
    *("T2000", "T1000", "T1200"),
)
# What of a card ComfyUI reckons with for weights: `maximum_vram_for_weights`.
SHARE_FOR_WEIGHTS, INFERENCE_BYTES = 0.88, 0.8 * (1 << 30)
# Families whose UNet, or VAE, may compute in float16, which cards before Ampere have; others know
# bfloat16 alone.
HALF_UNETS = frozenset(
    {"stable diffusion 1", "stable diffusion 2", "stable_diffusion_xl", "flux_1", "flux_dev"}
)
HALF_VAES = frozenset({"qwen_image", "krea2_turbo", "anima"})
assert FAMILIES.keys() > HALF_UNETS | HALF_VAES


@dataclass(frozen=True, slots=True)
class ComputedTypes:
    """Bytes of a number on a card of this name, compute capability and memory."""

    name: str
    capability: tuple[int, int]
    total_bytes: int

    def sampling_bytes(self, family: Family) -> int:
        """In which the UNet computes."""
        return 2 if self.capability >= AMPERE or self._has_halves(family, HALF_UNETS) else 4

    def decoding_bytes(self, family: Family) -> int:
        return 2 if self.capability >= AMPERE or self._has_halves(family, HALF_VAES) else 4

    def weight_bytes(self, part: str, family: Family, file_bytes: float, numbers: int) -> float:
        """Of a part's weights, so many numbers that take `file_bytes` each in its file."""
        if part == "vae":
            return self.decoding_bytes(family)
        if part not in UNETS:
            return min(2, file_bytes)  # text encoders
        room_bytes = SHARE_FOR_WEIGHTS * self.total_bytes - INFERENCE_BYTES
        if file_bytes < 2 and (self.capability >= ADA or 2 * numbers > room_bytes):
            return file_bytes
        if self.sampling_bytes(family) == 2:
            return 2
        # What is computed in 32 bits stays in 16 where it would be too large.
        return 2 if self.capability >= PASCAL and 4 * numbers > room_bytes else 4

    def _has_halves(self, family: Family, families: frozenset[str]) -> bool:
        is_named = any(name in self.name for name in NO_HALVES)
        return family.name in families and self.capability >= VOLTA and not is_named


UNETS = ("unet", "diffusion_model")  # as hordelib.files.sizes calls them
