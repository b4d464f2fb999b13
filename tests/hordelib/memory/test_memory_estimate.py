"""The estimate of what a job takes: its shape, what follows from it, and how it learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hordelib.job.families import FAMILIES, FLUX, SD1, SDXL, Family
from hordelib.job.params import GenerationParams
from hordelib.memory.corrections import Corrections
from hordelib.memory.estimates import ALWAYS_BYTES, DECODING_SPARE, Estimates, MemoryEstimate
from hordelib.memory.parts import value_bytes

MIB = 1 << 20
JOB = GenerationParams(prompt="a", width=512, height=512)
LARGE = replace(JOB, width=1024, height=1024)


def _model(manual_cast: torch.dtype | None, dtype: torch.dtype) -> SimpleNamespace:
    return SimpleNamespace(
        model=SimpleNamespace(manual_cast_dtype=manual_cast, get_dtype=lambda: dtype)
    )


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.name)
def test_larger_pictures_and_batches_take_more_of_every_family(family: Family):
    estimate = MemoryEstimate(family)
    assert estimate.sampling_bytes(JOB, 1) < estimate.sampling_bytes(JOB, 4)
    assert estimate.sampling_bytes(JOB, 1) < estimate.sampling_bytes(LARGE, 1)
    assert estimate.decoding_bytes(JOB) < estimate.decoding_bytes(LARGE)


def test_an_xl_picture_takes_what_comfyui_says():
    """Both prompts of 1024x1024 in 16 bits: 0.01 MiB a latent pixel and byte, times 0.8."""
    sampling = MemoryEstimate(SDXL).sampling_bytes(LARGE, 1) / MIB
    assert sampling == pytest.approx(524 + 32, abs=1)


def test_the_cpu_takes_twice_as_much_as_a_card():
    card, cpu = MemoryEstimate(SD1, value_bytes=2), MemoryEstimate(SD1, value_bytes=4)
    assert cpu.sampling_bytes(LARGE, 4) == pytest.approx(
        2 * card.sampling_bytes(LARGE, 4), rel=0.05
    )


@given(room=st.integers(0, 8 << 30), images=st.integers(1, 20))
def test_as_many_images_at_once_as_fit(room: int, images: int):
    estimate, job = MemoryEstimate(FLUX), replace(LARGE, images=images)
    at_once = estimate.images_at_once(job, room)
    assert 1 <= at_once <= images
    assert at_once == 1 or estimate.sampling_bytes(job, at_once) <= room
    assert at_once == images or estimate.sampling_bytes(job, at_once + 1) > room


@given(room=st.integers(0, 64 << 30))
def test_the_largest_picture_just_fits(room: int):
    estimate = MemoryEstimate(SD1)
    steps = estimate.most_pixels(room) // (64 * 64)  # in pictures of 64 pixels' height
    strip = replace(JOB, height=64, width=64 * min(max(1, steps), 48))
    assert steps == 0 or estimate.peak_bytes(strip) <= room


def test_a_measured_peak_corrects_upwards_at_once_and_downwards_within_some_jobs():
    estimate = MemoryEstimate(SD1)
    predicted = estimate.sampling_bytes(LARGE, 1)
    higher = estimate.corrected(predicted, 2 * predicted)
    assert higher.correction == pytest.approx(2)
    lower = estimate.corrected(predicted, predicted // 2)
    assert lower.correction == pytest.approx(1 - 0.8 * 0.45)


def test_sampling_and_decoding_learn_apart_and_three_jobs_are_enough():
    """Of an XL picture on a card: 4388 MiB are thought of for decoding, and 1711 are taken."""
    estimates, taken = Estimates(2, Corrections("a card")), 1711 * MIB
    for _ in range(3):
        used = estimates.of(SDXL, vae_bytes=160 * MIB)
        estimates.correct(used, used.sampling_bytes(LARGE, 1), 438 * MIB)
        estimates.correct_decoding(used, used.decoding_bytes(LARGE), taken, images=1)
    learnt = estimates.of(SDXL, vae_bytes=160 * MIB)
    assert taken < learnt.decoding_bytes(LARGE) < 1.1 * DECODING_SPARE * taken
    assert 438 * MIB < learnt.sampling_bytes(LARGE, 1) < 1.25 * 438 * MIB


def test_a_batch_decoded_at_once_does_not_make_one_image_of_it_dearer():
    estimates = Estimates(2, Corrections("a card"))
    used = estimates.of(SD1, vae_bytes=160 * MIB)
    predicted = used.decoding_bytes(LARGE)
    estimates.correct_decoding(used, predicted, 3 * predicted, images=4)
    assert estimates.of(SD1, vae_bytes=160 * MIB).decoding_correction == 1
    estimates.correct_decoding(used, predicted, 8 * predicted, images=4)
    assert estimates.of(SD1, vae_bytes=160 * MIB).decoding_correction == pytest.approx(2)


def test_small_jobs_and_wild_readings_spoil_nothing():
    estimate = MemoryEstimate(SD1)
    small = estimate.sampling_bytes(replace(JOB, width=64, height=64), 1)
    assert estimate.corrected(small, 100 * small) == estimate
    large = estimate.sampling_bytes(LARGE, 1)
    assert estimate.corrected(large, 1000 * large).correction == 4


def test_families_and_kinds_of_vae_learn_apart():
    estimates = Estimates(4, Corrections("cpu"))
    tiny = estimates.of(SD1, vae_bytes=5 * MIB)
    predicted = tiny.decoding_bytes(LARGE)
    estimates.correct_decoding(tiny, predicted, 2 * predicted, images=1)
    assert estimates.of(SD1, vae_bytes=5 * MIB).decoding_correction == pytest.approx(2)
    assert estimates.of(SD1, vae_bytes=160 * MIB).decoding_correction == 1
    estimates.correct(tiny, tiny.sampling_bytes(LARGE, 1), 2 * tiny.sampling_bytes(LARGE, 1))
    assert estimates.of(SD1, vae_bytes=160 * MIB).correction == pytest.approx(2)
    assert estimates.of(SDXL, vae_bytes=5 * MIB).correction == 1


def test_what_was_learnt_survives_a_restart_on_the_same_device(tmp_path: Path):
    file = tmp_path / "memory.json"
    first = Estimates(4, Corrections("a card", file))
    used = first.of(SD1, vae_bytes=160 * MIB)
    predicted = used.sampling_bytes(LARGE, 1)
    first.correct(used, predicted, 2 * predicted)
    again = Estimates(4, Corrections("a card", file))
    assert again.of(SD1, vae_bytes=160 * MIB).correction == pytest.approx(2)
    assert again.of(SDXL, vae_bytes=160 * MIB).correction == 1
    other = Estimates(4, Corrections("another card", file))
    assert other.of(SD1, vae_bytes=160 * MIB).correction == 1


@pytest.mark.parametrize("content", ["", "{", '{"device": "cpu", "factors": {"a": 1e9}}'])
def test_a_damaged_file_is_told_and_all_is_learnt_anew(
    tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture
):
    file = tmp_path / "memory.json"
    file.write_text(content)
    corrections = Corrections("cpu", file)
    assert corrections.of("a") == 1
    assert "what was learnt of memory begins anew" in caplog.text
    corrections.put("a", 3.0)
    assert Corrections("cpu", file).of("a") == 3


def test_a_folder_that_can_not_be_written_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    corrections = Corrections("cpu", tmp_path / "nowhere" / "memory.json")
    corrections.put("a", 3.0)
    assert corrections.of("a") == 3
    assert "lost at the end" in caplog.text


def test_a_vae_that_computes_in_32_bits_takes_twice_as_much_and_the_unet_does_not():
    """ComfyUI's choice for cards before Ampere."""
    ampere = MemoryEstimate(SDXL)
    turing = ampere.computed_in(2, 4)
    assert turing.sampling_bytes(LARGE, 1) == ampere.sampling_bytes(LARGE, 1)
    assert turing.decoding_bytes(LARGE) - ALWAYS_BYTES == 2 * (
        ampere.decoding_bytes(LARGE) - ALWAYS_BYTES
    )
    assert turing.most_pixels(8 << 30) < ampere.most_pixels(8 << 30)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (SimpleNamespace(vae_dtype=torch.float32), 4),
        (SimpleNamespace(vae_dtype=torch.bfloat16), 2),
        (_model(None, torch.float16), 2),
        (_model(torch.float32, torch.float16), 4),  # a GTX 1660's, of an SDXL model
        (_model(None, torch.float8_e4m3fn), 2),
        (object(), None),
    ],
)
def test_the_size_of_a_number_is_that_of_comfyuis_own_choice(value: object, expected: int | None):
    assert value_bytes(SimpleNamespace(value=value)) == expected
