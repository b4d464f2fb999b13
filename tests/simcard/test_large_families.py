"""Families of which not even one part fits a card of 12 GiB beside the others, at full size."""

from __future__ import annotations

from typing import Any

import pytest

from tests.simcard.bench import told_by, told_of

pytestmark = pytest.mark.timeout(900)  # one child's minute of a processor, on a busy machine


MANY_JOBS = 10  # of --card-jobs, from which on Cascade runs, too: a minute of a processor


@pytest.fixture(scope="module")
def told(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> dict[str, Any]:
    jobs: Any = request.config.getoption("--card-jobs")
    left_out = () if jobs >= MANY_JOBS else ("cascade",)
    folder = tmp_path_factory.mktemp("models")
    return told_by("tests.simcard.large_families", folder, 12, *left_out)


@pytest.mark.parametrize("family", ["flux", "cascade", "z_image"])
def test_pictures_are_made_and_the_reserve_is_kept_beside_torchs_cache(
    told: dict[str, Any], family: str
):
    """Blocks of a text encoder that left fit no weights of the network that follows it."""
    if family not in told:
        pytest.skip(f"--card-jobs {MANY_JOBS} or more runs {family}, too")
    seen = told_of(told, family)
    assert [job["images"] for job in seen["jobs"]] == [1] * len(seen["jobs"])
    assert all(job["lowest_free"] >= seen["reserve"] for job in seen["jobs"])
    assert seen["left"] < 10


def test_flux_in_8_bits_is_streamed_at_full_depth(told: dict[str, Any]):
    """11.1 GiB of UNet beside the work: what has no room comes again in each of the two steps."""
    first, second = told_of(told, "flux")["jobs"]
    text_encoder, network, vae = 4777, 11343, 160
    assert first["copied"] > text_encoder + network + vae
    assert second["copied"] < first["copied"] - 4000, "what fits stays"


def test_faster_ways_reach_comfyui_but_for_what_is_not_there(told: dict[str, Any]):
    assert told_of(told, "fast") == {"prefers_fp16": True, "has_sage_attention": False}
