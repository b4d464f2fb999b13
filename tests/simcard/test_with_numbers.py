"""The demo model on a simulated card that computes in the card's types."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.simcard.bench import told_by

pytestmark = pytest.mark.timeout(900)


def test_the_picture_is_the_same_after_half_of_each_model_left_the_card(checkpoint: Path):
    seen = told_by("tests.simcard.with_numbers", "tests.support.cuda_moves", checkpoint)
    assert seen["parts"]
    for had_bytes, has_bytes in seen["parts"].values():
        assert 0 < has_bytes <= had_bytes / 2
    assert seen["difference"] == 0
