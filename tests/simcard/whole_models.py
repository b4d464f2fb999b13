"""Checkpoints of Stable Diffusion 1.5 and XL, whose weights are holes in files."""

from __future__ import annotations

from pathlib import Path

from benchmarks.card.layouts import sd1, sdxl
from tests.support.family_files import write_header


def write_whole_sd1(path: Path) -> Path:
    """2.0 GiB in 16 bits."""
    return write_header(path, sd1(), prefix="")


def write_whole_sdxl(path: Path) -> Path:
    """6.5 GiB in 16 bits."""
    return write_header(path, sdxl(), prefix="")
