"""LayerDiffuse's files, as rows like those of the model reference."""

from __future__ import annotations

from pathlib import PurePosixPath

from hordelib.job.transparency import LAYER_DIFFUSE, Row
from worker.models.reference import Kind, ReferenceEntry, ReferenceFile


def transparency_entries() -> tuple[ReferenceEntry, ...]:
    """For each family that has transparent pictures its patches and its decoder."""
    return tuple(map(_entry, LAYER_DIFFUSE.values()))


def _entry(row: Row) -> ReferenceEntry:
    files = tuple(
        ReferenceFile(
            path=PurePosixPath(Kind.layer_diffuse) / weights.file,
            url=weights.url,
            sha256=weights.sha256,
            size_bytes=weights.size_bytes,
        )
        for weights in row.weights
    )
    size_bytes = sum(file.size_bytes for file in files)
    return ReferenceEntry(
        name=row.name, kind=Kind.layer_diffuse, files=files, size_bytes=size_bytes
    )
