"""What `check` says of memory and what is offered, for models of real sizes without weights."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hordelib.files.model import Model
from hordelib.files.sizes import ModelSize
from hordelib.job.families import FLUX, QWEN_IMAGE, SD1, Family
from hordelib.memory.computed_types import ComputedTypes
from tests.support.family_files import write_header
from worker.config.keys import BridgeConfig
from worker.config.values import MemoryReserve
from worker.devices import Card
from worker.models.memory_fit import ComputeMemory, misfit, most_at_once, most_pixels

MIB, GIB = 1 << 20, 1 << 30
AMPERE = ComputedTypes("NVIDIA GeForce RTX 3060", (8, 6), 8 * GIB)
CARD = ComputeMemory("vram_to_leave_free", 8 * GIB, 1 * GIB, AMPERE)
TURING = "NVIDIA GeForce RTX 2070", (7, 5)
NO_TENSOR_CORES = "NVIDIA GeForce GTX 1660", (7, 5)
CONFIG = BridgeConfig.model_validate({"api_key": "k", "dreamer_name": "w"})
VALUES = {
    "model.diffusion_model.a": (860, MIB),
    "first_stage_model.a": (84, MIB),
    "cond_stage_model.a": (123, MIB),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A Stable Diffusion 1 model of the usual size; its tensors are holes in the file."""
    path = tmp_path_factory.mktemp("models") / "usual.safetensors"
    return Model("Usual", SD1, {"checkpoint": write_header(path, VALUES, prefix="")})


def test_parts_are_as_large_as_they_are_computed_with(model: Model):
    main_memory = replace(CARD, types=None)
    assert CARD.size_of(model) == ModelSize(2 * 860 * MIB, 2 * 84 * MIB)
    assert main_memory.size_of(model) == ModelSize(4 * 860 * MIB, 4 * 84 * MIB)


def test_a_part_alone_in_its_file_is_known_by_its_loader(model: Model, tmp_path: Path):
    path = write_header(tmp_path / "vae.safetensors", {"decoder": (50, MIB)}, prefix="")
    assert CARD.size_of(replace(model, files={"vae": path})).vae_bytes == 100 * MIB


def test_a_model_that_fits_is_no_finding(model: Model):
    assert misfit("Usual", model, CARD) is None


def test_a_reserve_that_leaves_too_little_is_named_with_one_that_works(model: Model):
    tight = replace(CARD, reserve_bytes=7 * GIB)
    found = misfit("Usual", model, tight)
    assert found is not None
    assert "Usual needs 1.7 GiB, and vram_to_leave_free leaves 1.0 GiB of 8.0 GiB" in found.told
    suggested = re.search(r'"(.*)"', found.remedy)
    assert suggested is not None
    reserve_bytes = MemoryReserve.parse(suggested[1]).bytes_of(tight.total_bytes)
    assert misfit("Usual", model, replace(tight, reserve_bytes=reserve_bytes)) is None
    assert misfit("Usual", model, replace(tight, reserve_bytes=reserve_bytes + MIB)) is not None


def test_a_card_that_is_too_small_is_said_so(model: Model):
    found = misfit("Usual", model, replace(CARD, total_bytes=GIB, reserve_bytes=0))
    assert found is not None
    assert "no setting makes room" in found.remedy


@given(usable=st.integers(2, 64))
def test_no_larger_picture_is_offered_than_wanted_or_than_fits(model: Model, usable: int):
    memory = replace(CARD, total_bytes=usable * GIB, reserve_bytes=0)
    wanted = 4096 * 4096
    offered = most_pixels([model], memory, wanted)
    more = most_pixels([model], replace(memory, total_bytes=(usable + 1) * GIB), wanted)
    assert 0 < offered <= more <= wanted
    assert offered == wanted or offered * 2 * 2178 <= usable * GIB - 2 * 860 * MIB


def test_the_owners_own_limit_stays_where_there_is_room(model: Model):
    assert most_pixels([model], CARD, 1024 * 1024) == 1024 * 1024
    assert most_pixels([], CARD, 512 * 512) == 512 * 512


def test_how_many_pictures_fit_at_once_is_known_before_any_is_made(model: Model):
    assert most_at_once(model, CARD, 512 * 512, 8) == 8
    tight = replace(CARD, total_bytes=4 * GIB)  # 1.3 GiB beside the UNet and the reserve
    assert most_at_once(model, tight, 1024 * 1024, 8) == 2
    assert most_at_once(model, replace(tight, total_bytes=GIB), 1024 * 1024, 8) == 1


def test_cards_that_compute_in_32_bits_are_offered_for_smaller_pictures(model: Model):
    """On Turing ComfyUI decodes in them; of a GTX 16xx, whose halves are broken, all is wide."""
    cards = (("NVIDIA GeForce RTX 3060", (8, 6)), TURING, NO_TENSOR_CORES)
    ampere, turing, wide = (
        ComputeMemory.of(CONFIG, Card(name, "1", 6 * GIB, 6 * GIB, capability))
        for name, capability in cards
    )
    sizes = [most_pixels([model], memory, 1 << 30) for memory in (ampere, turing, wide)]
    assert sizes[1] < 0.6 * sizes[0]
    assert sizes[2] < 0.6 * sizes[1]
    largest = [memory.size_of(model).largest_part_bytes for memory in (ampere, turing, wide)]
    assert largest == [2 * 860 * MIB, 2 * 860 * MIB, 4 * 860 * MIB]
    batches = [most_at_once(model, memory, 1024 * 1024, 20) for memory in (turing, wide)]
    assert batches[1] < batches[0] / 2


@pytest.mark.parametrize(
    ("card", "family", "sampling", "decoding"),
    [
        (TURING, SD1, 2, 4),
        (TURING, FLUX, 2, 4),
        (TURING, QWEN_IMAGE, 4, 2),
        (NO_TENSOR_CORES, SD1, 4, 4),
        (("NVIDIA GeForce RTX 4090", (8, 9)), QWEN_IMAGE, 2, 2),
        (("NVIDIA GeForce GTX 1080", (6, 1)), SD1, 4, 4),
    ],
)
def test_numbers_are_as_wide_as_comfyui_computes_them(
    card: tuple[str, tuple[int, int]], family: Family, sampling: int, decoding: int
):
    types = ComputedTypes(*card, 8 * GIB)
    assert (types.sampling_bytes(family), types.decoding_bytes(family)) == (sampling, decoding)
