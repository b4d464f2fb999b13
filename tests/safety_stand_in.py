"""Puts the stand-in of horde_safety in the place where the real one would be."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from hordelib.horde_safety_judge import ANIME_WEIGHTS, CLIP_WEIGHTS, FOLDER, PHRASES
from hordelib.images import Picture

PACKAGES = Path(__file__).parent / "stand_ins"
PLAIN = Picture(64, 64, bytes(64 * 64 * 3), seed=1)


def install(patch: pytest.MonkeyPatch) -> None:
    """For this process and those that it spawns."""
    patch.setattr(sys, "path", [str(PACKAGES), *sys.path])


def put_weights(models: Path, anime: bytes = b"weights") -> Path:
    """The models folder, with files where horde_safety keeps its weights."""
    (models / FOLDER).mkdir(parents=True, exist_ok=True)
    for name in (CLIP_WEIGHTS[0], *PHRASES):
        (models / FOLDER / name).write_bytes(b"weights")
    (models / FOLDER / ANIME_WEIGHTS).write_bytes(anime)
    return models
