"""What is expected of a model's size before it is here: by the list alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePosixPath

import pytest

from hordelib.job.families import FAMILIES
from hordelib.memory.computed_types import ComputedTypes
from worker.models.files.expected_size import expected_misfit, expected_pixels, expected_size
from worker.models.memory_fit import ComputeMemory
from worker.models.reference import Kind, ReferenceEntry, ReferenceFile

GIB = 1 << 30


def entry(baseline: str, *sizes: int) -> ReferenceEntry:
    files = [
        ReferenceFile(path=PurePosixPath(f"compvis/{n}"), url="", size_bytes=size)
        for n, size in enumerate(sizes)
    ]
    return ReferenceEntry(
        name="A model",
        kind=Kind.model,
        baseline=baseline,
        files=tuple(files),
        size_bytes=sum(sizes),
    )


def card(gib: int) -> ComputeMemory:
    types = ComputedTypes("NVIDIA GeForce RTX 3060", (8, 6), gib * GIB)
    return ComputeMemory("vram_to_leave_free", gib * GIB, 700 << 20, types)


SD1 = entry("stable diffusion 1", 2_134_000_000)
SD1_IN_32_BITS = entry("stable diffusion 1", 4_260_000_000)
SDXL = entry("stable_diffusion_xl", 6_940_000_000)
FLUX_IN_8_BITS = entry("flux_1", 17_200_000_000)
QWEN = entry("qwen_image", 20_430_000_000, 9_380_000_000, 254_000_000)


@pytest.mark.parametrize(
    ("model", "gib"), [(SD1, 4), (SD1_IN_32_BITS, 4), (SDXL, 8), (FLUX_IN_8_BITS, 16), (QWEN, 24)]
)
def test_the_least_card_for_a_family(model: ReferenceEntry, gib: int):
    assert expected_misfit(model, card(gib)) is None
    assert expected_pixels(model, card(gib)) >= 512 * 512


@pytest.mark.parametrize(("model", "gib"), [(SDXL, 4), (FLUX_IN_8_BITS, 8), (QWEN, 16)])
def test_a_card_that_is_too_small(model: ReferenceEntry, gib: int):
    problem = expected_misfit(model, card(gib))
    assert problem
    assert f"of {gib}.0 GiB" in problem.told


def test_the_processor_computes_in_32_bits_and_a_card_in_16_whatever_the_file_has():
    family, processor = FAMILIES[SD1.baseline], replace(card(8), types=None)
    in_16 = expected_size(SD1, family, card(8)).largest_part_bytes
    assert expected_size(SD1, family, processor).largest_part_bytes == 2 * in_16
    assert expected_size(SD1_IN_32_BITS, family, card(8)).largest_part_bytes == in_16


def test_a_family_that_nobody_knows_is_not_judged():
    unknown = entry("", 10**12)
    assert expected_misfit(unknown, card(4)) is None
    assert expected_pixels(unknown, card(4)) == 0
