"""Seamless pictures: edges that continue each other, and a next job that knows nothing of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from hordelib import Engine
from hordelib.job.images import Picture
from tests.hordelib.test_engine import SMALL
from tests.support.looks import difference, pixels

# A shape that a seed pushes against the edges shows a seam best: a large one, off its centre.
PARAMS = replace(SMALL, prompt="a large yellow star on the right on a purple background", seed=5)


def seam(picture: Picture) -> float:
    """How much the first column differs from the last one, against neighbours inside."""
    array = pixels(picture)
    across = float(np.abs(array[:, 0] - array[:, -1]).mean())
    down = float(np.abs(array[0] - array[-1]).mean())
    return across + down


def test_the_edges_of_a_tiled_picture_continue_each_other(engine: Engine, checkpoint: Path):
    seams = {"tiled": 0.0, "plain": 0.0}
    for seed in range(3):
        params = replace(PARAMS, seed=seed, width=128)
        seams["plain"] += seam(engine.generate(params, checkpoint).images[0])
        seams["tiled"] += seam(engine.generate(replace(params, tiling=True), checkpoint).images[0])
    assert seams["tiled"] < 0.5 * seams["plain"], seams


def test_the_next_job_is_not_tiled(engine: Engine, checkpoint: Path):
    before = engine.generate(PARAMS, checkpoint).images[0]
    tiled = engine.generate(replace(PARAMS, tiling=True), checkpoint).images[0]
    other = replace(PARAMS, seed=6)
    engine.generate(other, checkpoint)
    after = engine.generate(PARAMS, checkpoint).images[0]
    assert difference(before, tiled) > 2
    assert difference(before, after) == 0
