from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hordelib.job.hires import first_pass_size, needs_two_passes, second_pass_steps

SIDES = st.integers(min_value=9, max_value=48).map(lambda count: 64 * count)


@given(SIDES, SIDES)
def test_the_first_pass_has_the_shape_of_the_picture(width: int, height: int):
    first_width, first_height = first_pass_size(width, height, 512)
    assert first_width % 8 == first_height % 8 == 0
    assert abs(first_width / first_height / (width / height) - 1) < 0.01
    assert 448 <= min(first_width, first_height) <= 576


@pytest.mark.parametrize(
    ("size", "native", "first"),
    [
        ((1024, 1024), 512, (512, 512)),
        ((768, 1024), 512, (504, 672)),
        ((2048, 1024), 512, (1024, 512)),
        ((1536, 1536), 1024, (1024, 1024)),
    ],
)
def test_sizes_of_the_first_pass(size: tuple[int, int], native: int, first: tuple[int, int]):
    assert first_pass_size(*size, native) == first


@pytest.mark.parametrize(
    ("size", "native", "twice"),
    [
        ((512, 1024), 512, False),
        ((576, 576), 512, True),
        ((1024, 1536), 1024, False),
        ((1088, 1088), 1024, True),
    ],
)
def test_small_pictures_need_one_pass(size: tuple[int, int], native: int, twice: bool):
    assert needs_two_passes(*size, native) == twice


@pytest.mark.parametrize(
    ("side", "native", "steps"),
    [(1024, 512, 16), (768, 512, 10), (1536, 1024, 18), (2048, 1024, 30)],
)
def test_steps_of_the_second_pass(side: int, native: int, steps: int):
    assert second_pass_steps(side, side, 30, 0.65, native) == steps


@given(SIDES, SIDES, st.integers(1, 500), st.floats(0.01, 1))
def test_the_second_pass_is_never_the_longer_one(
    width: int, height: int, steps: int, denoise: float
):
    second = second_pass_steps(width, height, steps, denoise, 512)
    assert min(6, steps) <= second <= steps
