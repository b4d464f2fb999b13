"""Maps that need no weights: each shows of a picture what its type is for, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from hordelib.job.control_types import ControlType
from hordelib.pictures.plain_maps import PLAIN, SEEDED, Pixels, draw_shuffled
from tests.support.bounds import bounded

SIDE = 192
RED, BLUE, WHITE = (220, 30, 40), (30, 60, 200), (255, 255, 255)
INSIDE, OUTSIDE = (slice(80, 112), slice(80, 112)), (slice(10, 40), slice(10, 40))


def box(colour: tuple[int, ...] = RED, ground: tuple[int, ...] = BLUE) -> Pixels:
    """A box in the middle, from 64 to 128 of both sides."""
    picture = np.full((SIDE, SIDE, 3), ground, np.uint8)
    picture[64:128, 64:128] = colour
    return picture


def drawing() -> Pixels:
    """A black line, three pixels wide, on paper that gets darker from left to right."""
    picture = np.repeat(np.linspace(255, 180, SIDE)[None, :, None], SIDE, 0).repeat(3, 2)
    picture[94:97, 20:-20] = 0
    return picture.astype(np.uint8)


def fields(seed: int = 1) -> Pixels:
    """Fields of 16 pixels with many colours, and noise on them."""
    random = np.random.default_rng(seed)
    colours = random.integers(40, 216, (SIDE // 16, SIDE // 16, 3))
    noise = random.integers(-12, 13, (SIDE, SIDE, 3))
    return (colours.repeat(16, 0).repeat(16, 1) + noise).astype(np.uint8)


def draw(control: ControlType, picture: Pixels) -> Pixels:
    drawn = PLAIN[control](picture)
    assert drawn.shape == picture.shape
    assert drawn.dtype == np.uint8
    return drawn


def is_near_the_border(spread: int) -> np.ndarray:
    rows, columns = np.indices((SIDE, SIDE)) + 0.5
    distance = np.maximum(np.abs(rows - 96), np.abs(columns - 96)) - 32
    return np.abs(distance) <= spread


@pytest.mark.parametrize(
    ("control", "spread"), [(ControlType.canny, 2), (ControlType.pyracanny, 12)]
)
def test_edges_are_where_there_is_an_edge_and_nowhere_else(control: ControlType, spread: int):
    edges = draw(control, box())
    assert (edges == edges[..., :1]).all()
    assert edges[96, 60:68].max() == edges[60:68, 96].max() == 255
    assert not edges[~is_near_the_border(spread)].any()
    assert not draw(control, np.full((SIDE, SIDE, 3), BLUE, np.uint8)).any()


def test_an_edge_that_more_scales_show_is_lighter():
    faint, strong = box((60, 80, 220)), box()
    assert draw(ControlType.canny, faint)[96, 60:68].max() == 0
    both = np.concatenate([strong, faint], axis=1)
    edges = draw(ControlType.pyracanny, both)
    assert edges[96, 56:72].sum() > 1.5 * edges[96, SIDE + 56 : SIDE + 72].sum()


def test_binary_parts_what_is_light_from_what_is_dark():
    parted = draw(ControlType.binary, box(WHITE, (99, 99, 99)))
    assert (parted[INSIDE] == 255).all()
    assert not parted[OUTSIDE].any()
    assert (draw(ControlType.binary, box(WHITE, (101, 101, 101))) == 255).all()


@pytest.mark.parametrize(
    "control", [ControlType.scribble, ControlType.scribble_xdog, ControlType.standard_lineart]
)
def test_the_dark_lines_of_a_drawing_are_light_ones_on_black(control: ControlType):
    lines = draw(control, drawing())
    assert lines[95, 40:-40].min() >= 100
    far = np.r_[0:70, 121:SIDE]
    assert lines[far].max() <= (8 if control is ControlType.standard_lineart else 0)


def test_the_darkest_lines_are_found_as_faint_ones_are():
    """Twice their depth does not fit into a byte."""
    drawn = box((250, 250, 250), (250, 250, 250))
    drawn[90, 10:-10], drawn[140, 10:-10] = 0, 200
    scribble = draw(ControlType.scribble_xdog, drawn)
    assert (scribble[[90, 140], 20:-20] == 255).all()


def test_lines_are_as_light_whatever_the_pencil():
    faint = 255 - (255 - drawing()) // 3
    middle = [draw(ControlType.standard_lineart, each)[95, 96, 0] for each in (drawing(), faint)]
    assert middle[0] == pytest.approx(middle[1], abs=12)


def test_a_picture_without_lines_has_none():
    for control in (ControlType.scribble_xdog, ControlType.standard_lineart):
        assert not draw(control, np.full((SIDE, SIDE, 3), 200, np.uint8)).any()


def test_colours_stay_in_blocks_at_their_places():
    blocks = draw(ControlType.color, box())
    assert all(len(np.unique(blocks[64 * i : 64 * i + 64, :64], axis=1)) for i in range(3))
    inside, outside = blocks[INSIDE].reshape(-1, 3), blocks[OUTSIDE].reshape(-1, 3)
    assert len({*map(tuple, inside.tolist())}) == len({*map(tuple, outside.tolist())}) == 1
    assert np.abs(inside[0].astype(int) - RED).max() < 30
    assert np.abs(outside[0].astype(int) - BLUE).max() < 30


def test_luminance_is_what_eyes_see_and_intensity_the_strongest_channel():
    green, blue = (0, 200, 0), (0, 0, 200)
    light = draw(ControlType.recolor_luminance, box(green, blue))
    strong = draw(ControlType.recolor_intensity, box(green, blue))
    assert light[INSIDE].mean() > 1.8 * light[OUTSIDE].mean()
    assert (strong == 200).all()
    for control in (ControlType.recolor_luminance, ControlType.recolor_intensity):
        ramp = np.arange(256, dtype=np.uint8)[None, :, None].repeat(8, 0).repeat(3, 2)
        grey = draw(control, ramp).astype(int)
        assert np.abs(grey - ramp).max() <= 10  # grey stays what it is
        assert (np.diff(grey, axis=1) >= 0).all()


TILES = (ControlType.tile, ControlType.tile_ttplanet_guided, ControlType.tile_ttplanet_simple)


@pytest.mark.parametrize("control", TILES)
def test_a_tile_keeps_hue_and_place_and_loses_detail(control: ControlType):
    tile = draw(control, box())
    for place, colour in ((INSIDE, RED), (OUTSIDE, BLUE)):
        assert np.abs(tile[place].astype(int) - colour).max() <= 2
    assert np.abs(tile.astype(int) - tile[::-1]).max() <= 1  # nothing moved
    assert np.abs(tile.astype(int) - tile[:, ::-1]).max() <= 1
    noisy = fields()
    smooth = draw(control, noisy)
    field = np.s_[4:12, 4:12]
    assert smooth[field].std(axis=(0, 1)).mean() < 0.75 * noisy[field].std(axis=(0, 1)).mean()


def test_the_guided_tile_smooths_textures_and_keeps_edges():
    random = np.random.default_rng(2)
    noisy = (box() + random.integers(-10, 11, (SIDE, SIDE, 3))).clip(0, 255).astype(np.uint8)
    guided = draw(ControlType.tile_ttplanet_guided, noisy)
    simple = draw(ControlType.tile_ttplanet_simple, noisy)
    assert guided[INSIDE].std(axis=(0, 1)).mean() < 0.5 * simple[INSIDE].std(axis=(0, 1)).mean()
    edge = np.s_[80:112, 63:65]
    assert np.ptp(guided[edge].astype(int), axis=1).mean() > 50


def test_a_shuffle_has_the_same_colours_elsewhere_and_each_seed_its_own():
    picture = box()
    shuffled = draw_shuffled(7, picture)
    assert shuffled.shape == picture.shape
    is_red = shuffled[..., 0].astype(int) > shuffled[..., 2]
    assert 0.01 < is_red.mean() < 0.5
    assert (is_red != (picture[..., 0] > picture[..., 2])).mean() > 0.05
    assert (draw_shuffled(7, picture) == shuffled).all()
    assert (draw_shuffled(8, picture) != shuffled).any()


def test_the_largest_and_the_smallest_seed_draw_too():
    seeds = [draw_shuffled(seed, box()) for seed in (0, 1, 2**64 - 2, 2**64 - 1)]
    assert (seeds[0] == seeds[3]).all()  # as the horde's workers have it: mod 2^64 - 1
    assert all((seeds[0] != other).any() for other in seeds[1:3])


@pytest.mark.parametrize("control", [*PLAIN, *SEEDED], ids=str)
@pytest.mark.parametrize("shape", [(64, 3072), (3072, 64), (64, 64), (1, 1), (7, 250)], ids=str)
def test_odd_shapes_and_flat_pictures_give_a_map_of_their_size(
    control: ControlType, shape: tuple[int, int]
):
    for value in (0, 255):
        flat = np.full((*shape, 3), value, np.uint8)
        drawn = PLAIN[control](flat) if control in PLAIN else SEEDED[control](1, flat)
        assert drawn.shape == flat.shape


def test_maps_of_a_large_picture_take_about_a_second_each():
    """A loop over pixels would take minutes."""
    large = fields().repeat(6, 0).repeat(6, 1)[:1024, :1024]
    for drawn in PLAIN.values():
        with bounded(seconds=1, more_bytes=1 << 30):
            drawn(large)
