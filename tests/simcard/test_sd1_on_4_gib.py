"""Stable Diffusion 1.5 on a simulated card of 4 GiB, in one child for all scenarios."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from tests.simcard.bench import told_by, told_of

pytestmark = pytest.mark.timeout(900)  # one child's 30 s of a processor, on a busy machine

WEIGHTS = 2035  # MiB of one model on the card


@pytest.fixture(scope="module")
def told(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> dict[str, Any]:
    jobs: Any = request.config.getoption("--card-jobs")
    return told_by("tests.simcard.sd1_on_4_gib", tmp_path_factory.mktemp("models"), jobs)


def test_two_models_in_turn_come_once_each_at_most_and_keep_the_reserve(told: dict[str, Any]):
    """Both never fit; once it is learnt what work takes, some of the one can stay."""
    seen = told_of(told, "two_models_in_turn")
    first, *others = [job["copied"] for job in seen["jobs"]]
    assert first == pytest.approx(WEIGHTS, abs=20)
    assert all(WEIGHTS // 2 < copied <= WEIGHTS + 20 for copied in others)
    assert all(job["lowest_free"] >= seen["reserve"] for job in seen["jobs"])
    assert all(job["returned"] < 10 for job in seen["jobs"])  # pictures alone
    assert all(job["empties"] <= 3 for job in seen["jobs"]), "of the allocator's cache; it was 5"
    assert seen["left"] < 10


def test_a_model_that_stays_is_copied_once(told: dict[str, Any]):
    first, *others = told_of(told, "one_model_again_and_again")["jobs"]
    assert first["copied"] > WEIGHTS - 20
    assert [job["copied"] for job in others] == pytest.approx([0] * len(others), abs=5)


def test_encoded_prompts_leave_nothing_on_the_card(told: dict[str, Any]):
    seen = told_of(told, "many_prompts")
    assert seen["after"] - seen["before"] < 0.1


def test_schedules_are_of_the_cpu_before_and_after_a_load(told: dict[str, Any]):
    seen = told_of(told, "schedules")
    assert seen["before"] == seen["after"]
    assert seen["before"][0] == "cpu"


def test_a_batch_that_runs_out_of_memory_in_a_step_is_halved(told: dict[str, Any]):
    seen = told_of(told, "out_of_memory_in_a_step")
    assert (seen["images"], seen["failed"]) == (4, True)


@pytest.mark.parametrize("name", ["cuda", "cudnn", "cublas"])
def test_a_batch_is_halved_where_memory_runs_out_by_another_name(told: dict[str, Any], name: str):
    seen = told_of(told, name)
    assert (seen.get("images"), seen["failed"]) == (2, True)


def test_a_card_without_nvml_makes_its_pictures(told: dict[str, Any]):
    (job,) = told_of(told, "no_nvml")["jobs"]
    assert job["images"] == 1


def test_running_out_of_memory_while_loading_still_gives_the_picture(told: dict[str, Any]):
    seen = told_of(told, "out_of_memory_while_loading")
    assert (seen["images"], seen["failed"]) == (1, True)
    assert seen["left"] < 20


def test_running_out_of_memory_for_good_ends_that_job_alone(told: dict[str, Any]):
    seen = told_of(told, "out_of_memory_without_a_reserve")
    assert (seen["raised"], seen["images"]) == ("OutOfMemory", 1)
    assert seen["left"] < 20


def test_running_out_of_memory_while_decoding_still_gives_the_picture(told: dict[str, Any]):
    seen = told_of(told, "out_of_memory_while_decoding")
    assert (seen["images"], seen["failed"]) == (1, True)


def test_a_picture_that_has_no_room_to_be_decoded_at_once_is_made(told: dict[str, Any]):
    seen = told_of(told, "decoding_without_room")
    (job,) = seen["jobs"]
    assert job["images"] == 1
    assert job["lowest_free"] >= seen["reserve"]


def test_what_another_program_takes_in_the_middle_costs_no_picture(told: dict[str, Any]):
    seen = told_of(told, "another_program_in_the_middle")
    assert [job["images"] for job in seen["jobs"]] == [1, 1]
    assert seen["jobs"][1]["lowest_free"] >= seen["reserve"]


def test_mixed_jobs_leave_no_more_and_more_on_the_card(told: dict[str, Any]):
    left = told_of(told, "mixed_jobs")["left"]
    assert all(after - before < 10 for before, after in pairwise(left))
    assert left[-1] < 20


def test_flux_in_8_bits_whose_parts_fit_in_turn_at_most_is_streamed(told: dict[str, Any]):
    """4.4 GiB of T5 alone are more than the card has beside CUDA and the reserve."""
    seen = told_of(told, "flux")
    first, second = seen["jobs"]
    assert [first["images"], second["images"]] == [1, 1]
    assert second["copied"] <= first["copied"]
    assert min(first["lowest_free"], second["lowest_free"]) >= seen["reserve"]
    assert seen["left"] < 10


def test_a_controlnet_hires_fix_and_an_upscaler_keep_the_reserve(told: dict[str, Any]):
    seen = told_of(told, "control_hires_and_upscaler")
    assert seen["side"] == 4 * 768
    (job,) = seen["jobs"]
    assert job["images"] == 1
    assert job["lowest_free"] >= seen["reserve"]
    assert seen["left"] < 10


@pytest.mark.parametrize(
    ("card", "types"),
    [
        ("RTX 2060", {"unet": 2, "vae": 4}),
        ("GTX 1650", {"unet": 4, "vae": 4}),
    ],
)
def test_a_job_on_turing_decodes_in_32_bits_and_on_a_gtx_16xx_samples_in_them(
    told: dict[str, Any], card: str, types: dict[str, int]
):
    seen = told_of(told, card)
    (job,) = seen["jobs"]
    assert job["images"] == 1
    assert job["lowest_free"] >= 400
    assert {name: seen["types"][name] for name in types} == types
    assert seen["left"] < 10
