"""The demo model on a simulated card that computes in the card's types."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.simcard.bench import told_by, told_of
from tests.support.looks import Apart
from worker.setup.finding import Verdict

pytestmark = pytest.mark.timeout(900)  # 17 s of a processor, on a busy machine

MODEL = 306  # MiB of its UNet and text encoder on the card


@pytest.fixture(scope="module")
def told(models: Path, checkpoint: Path) -> dict[str, Any]:
    return told_by("tests.simcard.demo_with_numbers", models)


def test_the_picture_is_the_same_after_half_of_each_model_left_the_card(told: dict[str, Any]):
    seen = told_of(told, "half_unloaded")
    assert seen["parts"]
    for had_bytes, has_bytes in seen["parts"].values():
        assert 0 < has_bytes <= had_bytes / 2
    assert seen["difference"] == 0


def test_another_lora_has_the_weights_that_it_changes_copied_and_no_others(told: dict[str, Any]):
    _, _, *changes = told_of(told, "loras_in_turn")["copied"]
    assert all(0 < copied < MODEL / 10 for copied in changes)


def test_a_lora_s_picture_is_the_same_after_another_lora_after_none_and_after_eviction(
    told: dict[str, Any],
):
    seen = told_of(told, "loras_in_turn")
    assert seen["differences"] == [0] * 6
    assert all(other > 50 for other in seen["others"])


@pytest.mark.parametrize("sampler", ["k_euler", "k_euler_a"])
def test_a_picture_of_a_batch_is_as_near_to_the_same_alone_as_rounding_lets_it(
    told: dict[str, Any], sampler: str
):
    """Single values may move by several of 255, so that the largest one says nothing."""
    seen = told_of(told, sampler)
    assert seen["most"] > 0, "it was rounded otherwise"
    assert Apart(seen["mean"], seen["share"]).is_nothing


def test_no_sampler_has_the_host_wait_for_the_card_between_steps(told: dict[str, Any]):
    """But one that decides by what was computed, and those whose coefficients are the card's."""
    waiting = {"k_dpm_adaptive", "uni_pc", "uni_pc_bh2", "sa_solver", "sa_solver_pece"}
    assert set(told_of(told, "waits_in_steps")) == waiting


def test_a_card_of_capability_6_1_is_refused_by_check_and_at_the_start(told: dict[str, Any]):
    seen = told_of(told, "refused")
    assert seen["verdict"] == Verdict.failed
    assert "compute capability 6.1" in seen["detail"]
    assert "has no kernels for it" in seen["detail"]
    assert "update-runtime.sh" in seen["start"]


def test_what_is_offered_before_the_engine_is_up_reckons_with_comfyuis_own_types(
    told: dict[str, Any],
):
    """On Ampere, Ada, Turing with and without tensor cores, for files of 16 and of 8 bits."""
    assert told_of(told, "type_choices")["apart"] == {}
