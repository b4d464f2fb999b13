"""Weights of Stable Diffusion XL go to the card once, where they fit beside the work."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.simcard.bench import told_by

pytestmark = pytest.mark.timeout(900)  # 20 s of a processor, on a busy machine


def test_the_fourth_job_of_a_model_copies_no_weights_on_10_gib(tmp_path: Path):
    """6,616 MiB of weights and 1,711 of decoding fit into 10 GiB less the reserve."""
    seen = told_by("tests.simcard.sdxl_job_after_job", tmp_path, 10, 4)["one_after_another"]
    assert "error" not in seen, seen["error"]
    first, _, third, fourth = seen["jobs"]
    assert first["copied"] > 6000
    assert third["copied"] < 500
    assert fourth["copied"] < 50
    assert fourth["measured"] <= fourth["predicted"]
    assert min(job["lowest_free"] for job in seen["jobs"]) >= 400, "the reserve"
