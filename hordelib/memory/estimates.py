"""How much memory a job's computing takes beside its models' weights, before it runs.

Bytes are a straight line in pixels and in images, with ComfyUI's own slopes: `memory_required` of
comfy/model_base.py with the `memory_usage_factor` of comfy/supported_models.py, and
`memory_used_decode` of comfy/sd.py. What was measured of earlier jobs corrects them.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace

from hordelib.job.families import FAMILIES, Family
from hordelib.job.fitting import prompts_a_run
from hordelib.job.params import GenerationParams
from hordelib.memory.corrections import Corrections

ALWAYS_BYTES = 32 << 20  # text encoding, and what is there whatever the size
CONTROL_SHARE = 0.5  # a ControlNet is a copy of the half of the UNet that encodes
TINY_VAE_BYTES = 64 << 20  # weights; TAESD has 5 MB, others have 160 MB and more
TINY_VAE_SLOPE = 1150.0  # measured with TAESD, in 16 bits
UNCOVER_SLOPE = 1400.0  # of LayerDiffuse's decoder, in 16 bits: half of what was measured in 32
_LATENT_PIXELS = 64  # pixels of the picture to one of the latent
_PER_LATENT_PIXEL = 0.01 * (1 << 20)


@dataclass(slots=True)
class BatchSizes:
    """How many images are sampled at once."""

    at_most: int = sys.maxsize  # more of them don't fit into the device's memory
    now: int = 0  # in the batch at work
    largest: int = 0  # in a batch that came to its end


@dataclass(frozen=True, slots=True)
class _Slopes:
    """Bytes for each pixel of one image, in 16 bits."""

    sample: float  # for each prompt
    decode: float
    prompts: int  # that usual jobs read


def _slopes(usage_factor: float, decode: float, prompts: int = 2) -> _Slopes:
    return _Slopes(2 * _PER_LATENT_PIXEL * usage_factor / _LATENT_PIXELS, decode, prompts)


# ComfyUI's for the WAN VAE, 7000, is for frames of a film: that of one picture is a quarter of it.
_KL, _STAGE_A, _WAN = 2 * 2178.0, 2 * 2178.0 * 4, 2 * 2500.0  # the kinds of VAE
_SLOPES: Mapping[str, _Slopes] = {
    "stable diffusion 1": _slopes(1.0, _KL),
    "stable diffusion 2": _slopes(1.0, _KL),
    "stable_diffusion_xl": _slopes(0.8, _KL),
    "stable_cascade": _slopes(2.0, _STAGE_A),
    "flux_1": _slopes(3.1, _KL, prompts=1),
    "flux_dev": _slopes(3.1, _KL, prompts=1),
    "qwen_image": _slopes(1.8, _WAN),
    "z_image_turbo": _slopes(1.4, _KL),
    "krea2_turbo": _slopes(2.2, _WAN),
    "anima": _slopes(0.95, _WAN),
}
assert _SLOPES.keys() == FAMILIES.keys()


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """What jobs of a family take on a kind of device.

    `value_bytes` of a number that is computed with: 2 on most cards, 4 on the CPU;
    `decode_value_bytes` where the VAE computes in another type (0: it does not). `correction` is
    what measured peaks of sampling came to, in multiples of the estimate, `decoding_correction`
    those of decoding: the two have nothing in common.
    """

    family: Family
    value_bytes: int = 2
    has_tiny_vae: bool = False
    correction: float = 1.0
    decoding_correction: float = 1.0
    decode_value_bytes: int = 0

    def sampling_bytes(self, params: GenerationParams, images: int) -> int:
        """For so many images at once; the largest size that the job samples at."""
        controls = (params.control is not None) + (params.qr_code is not None)
        slope = _SLOPES[self.family.name].sample * (1 + CONTROL_SHARE * controls)
        slope *= prompts_a_run(params, self.family)
        half = slope * params.width * params.height * images * self.correction
        return ALWAYS_BYTES + int(half * self.value_bytes / 2)

    def decoding_bytes(self, params: GenerationParams) -> int:
        """For one image: a batch is decoded as many at a time as there is room for."""
        return self._decoding(self._decode_slope * params.width * params.height)

    def uncovering_bytes(self, params: GenerationParams) -> int:
        """To find the opacity of one image; those of a batch follow each other."""
        return self._decoding(UNCOVER_SLOPE * params.width * params.height)

    def peak_bytes(self, params: GenerationParams) -> int:
        """The most at one moment, however large the batch."""
        return max(self.sampling_bytes(params, params.images), self.decoding_bytes(params))

    def images_at_once(self, params: GenerationParams, room_bytes: int) -> int:
        """How many of the job's images fit together; 1 where not even one does."""
        return max(
            (
                n
                for n in range(1, params.images + 1)
                if self.sampling_bytes(params, n) <= room_bytes
            ),
            default=1,
        )

    def most_pixels(self, room_bytes: int) -> int:
        """The largest picture, in pixels, that there is room for; 0: none."""
        slopes = _SLOPES[self.family.name]
        sampling = slopes.prompts * slopes.sample * self.value_bytes * self.correction
        decoding = self._decode_slope * self._decode_bytes * self.decoding_correction
        per_pixel = max(sampling, decoding) / 2
        return max(0, int((room_bytes - ALWAYS_BYTES) / per_pixel))

    def corrected(self, predicted_bytes: int, measured_bytes: int) -> MemoryEstimate:
        """With what sampling in one job really took."""
        found = _learnt(self.correction, predicted_bytes, measured_bytes)
        return replace(self, correction=found)

    def decoding_corrected(self, predicted_bytes: int, measured_bytes: int) -> MemoryEstimate:
        """With what decoding one image really took."""
        found = _learnt(self.decoding_correction, predicted_bytes, measured_bytes, DECODING_SPARE)
        return replace(self, decoding_correction=found)

    def widened(self) -> MemoryEstimate:
        """Of a model that computes in 32 bits."""
        return replace(self, value_bytes=4, decode_value_bytes=4)

    def computed_in(self, value_bytes: int | None, decode_bytes: int | None) -> MemoryEstimate:
        """With the types that ComfyUI has chosen for this device; None: not known."""
        return replace(
            self,
            value_bytes=value_bytes or self.value_bytes,
            decode_value_bytes=decode_bytes or self.decode_value_bytes,
        )

    def for_vae(self, weights_bytes: int) -> MemoryEstimate:
        """With a VAE of this size."""
        return replace(self, has_tiny_vae=weights_bytes < TINY_VAE_BYTES)

    @property
    def _decode_slope(self) -> float:
        return TINY_VAE_SLOPE if self.has_tiny_vae else _SLOPES[self.family.name].decode

    @property
    def _decode_bytes(self) -> int:
        return self.decode_value_bytes or self.value_bytes

    def _decoding(self, half_precision_bytes: float) -> int:
        half = half_precision_bytes * self.decoding_correction
        return ALWAYS_BYTES + int(half * self._decode_bytes / 2)


LEAST_CORRECTION, MOST_CORRECTION = 0.25, 4.0
SPARE = 1.1  # of what was measured: the next job may take a little more
# Of decoding, torch holds 1.42 times what is allocated, in pieces that nothing else fits into (SDXL
# on the simulated card of 8 GiB): with less, other programs would lose what is left free for them.
DECODING_SPARE = 1.5
DOWNWARDS = 0.8
TELLING_BYTES = 4 * ALWAYS_BYTES


def _learnt(
    correction: float, predicted_bytes: int, measured_bytes: int, spare: float = SPARE
) -> float:
    """Upwards at once, downwards by four fifths, to a little more than was measured.

    A job that took less may have been lucky; one that took more will do so again. Small ones tell
    nothing: what is always there is most of theirs.
    """
    if predicted_bytes < TELLING_BYTES:
        return correction
    ratio = measured_bytes / predicted_bytes
    found = correction * (ratio if ratio > 1 else min(1.0, ratio * spare))
    found = min(max(found, LEAST_CORRECTION), MOST_CORRECTION)
    return found if found > correction else correction + DOWNWARDS * (found - correction)


class Estimates:
    """One estimate for each family on one device, corrected by what jobs really took."""

    def __init__(self, value_bytes: int, corrections: Corrections):
        self._value_bytes = value_bytes
        self._corrections = corrections

    def of(self, family: Family, vae_bytes: int) -> MemoryEstimate:
        fresh = MemoryEstimate(family, self._value_bytes).for_vae(vae_bytes)
        return replace(
            fresh,
            correction=self._corrections.of(family.name),
            decoding_correction=self._corrections.of(_decoding(fresh)),
        )

    def correct(self, used: MemoryEstimate, predicted_bytes: int, measured_bytes: int) -> None:
        """Learn from the sampling of a job of the estimate's that came to its end."""
        corrected = used.corrected(predicted_bytes, measured_bytes)
        self._corrections.put(used.family.name, corrected.correction)

    def correct_decoding(
        self, used: MemoryEstimate, predicted_bytes: int, measured_bytes: int, images: int
    ) -> None:
        """Learn from its decoding.

        Of a batch, nobody knows how many were decoded at once: it can only show that one image
        takes more than was thought.
        """
        if images > 1:
            measured_bytes = max(predicted_bytes, measured_bytes // images)
        corrected = used.decoding_corrected(predicted_bytes, measured_bytes)
        self._corrections.put(_decoding(used), corrected.decoding_correction)


def _decoding(estimate: MemoryEstimate) -> str:
    kind = "tiny VAE" if estimate.has_tiny_vae else "decoding"
    return f"{estimate.family.name}, {kind}"
