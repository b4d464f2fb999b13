"""The weights that ControlNet's annotators need, as rows like those of the model reference."""

from __future__ import annotations

from pathlib import PurePosixPath

from hordelib.job.control_types import CONTROL_TYPES, Weights
from worker.models.reference import Kind, ReferenceEntry, ReferenceFile


def annotator_entries() -> tuple[ReferenceEntry, ...]:
    """Every file that some control type's annotator needs, each once."""
    rows = (row.weights for row in CONTROL_TYPES.values())
    return tuple(map(_entry, dict.fromkeys(weights for weights in rows if weights is not None)))


def _entry(weights: Weights) -> ReferenceEntry:
    path = PurePosixPath(Kind.annotator) / weights.file
    file = ReferenceFile(path=path, url=weights.url, sha256=weights.sha256)
    return ReferenceEntry(name=path.stem, kind=Kind.annotator, files=(file,))
