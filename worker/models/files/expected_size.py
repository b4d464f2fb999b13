"""How large the parts of a model of the horde's list will be, before any of it is on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hordelib.files.sizes import ModelSize
from hordelib.job.families import FAMILIES, Family
from hordelib.memory.estimates import TINY_VAE_BYTES
from worker.models.memory_fit import ComputeMemory, Misfit, misfit_of_size, room_for_pixels
from worker.models.reference import ReferenceEntry

MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Weights:
    """Millions of numbers: of the part that computes the steps, and of all parts in its file."""

    steps: int
    all: int


# As counted in the files that the families were published with: UNet or transformer, text encoders,
# VAE. Families that the list has as several files are not here: the list says how large each is.
WEIGHTS: Mapping[str, Weights] = {
    "stable diffusion 1": Weights(860, 860 + 123 + 84),
    "stable diffusion 2": Weights(866, 866 + 354 + 84),
    "stable_diffusion_xl": Weights(2567, 2567 + 818 + 84),
    "flux_1": Weights(11_901, 11_901 + 4762 + 123 + 84),
    "flux_dev": Weights(11_901, 11_901 + 4762 + 123 + 84),
}


def expected_size(entry: ReferenceEntry, family: Family, memory: ComputeMemory) -> ModelSize:
    """As it will be computed with in this memory; 0 where nobody knows a size."""
    weights = WEIGHTS.get(entry.baseline)
    if weights is None or len(entry.files) > 1:
        # Files of 16 bits or fewer; the CPU computes with 32.
        largest = max(file.size_bytes for file in entry.files) or entry.size_bytes
        return ModelSize(largest if memory.types else 2 * largest, TINY_VAE_BYTES)
    file_bytes = entry.size_bytes / (weights.all * MILLION) or 2.0
    each = memory.weight_bytes("unet", family, file_bytes, weights.steps * MILLION)
    return ModelSize(int(weights.steps * MILLION * each), TINY_VAE_BYTES)


def expected_misfit(entry: ReferenceEntry, memory: ComputeMemory) -> Misfit | None:
    """None for a model that will fit, as far as the list tells; one of no known family does."""
    family = FAMILIES.get(entry.baseline)
    if family is None:
        return None
    size = expected_size(entry, family, memory)
    return misfit_of_size(entry.name, family, size, memory)


def expected_pixels(entry: ReferenceEntry, memory: ComputeMemory) -> int:
    """The largest picture that there will be room for; 0: none, or its family is not known."""
    family = FAMILIES.get(entry.baseline)
    if family is None:
        return 0
    return room_for_pixels(family, expected_size(entry, family, memory), memory)
