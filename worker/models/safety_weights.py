"""The weights that horde_safety needs, as a row like those of the model reference."""

from __future__ import annotations

from pathlib import PurePosixPath

from hordelib.safety import csam
from worker.models.reference import Kind, ReferenceEntry, ReferenceFile


def safety_entry() -> ReferenceEntry:
    files = tuple(
        ReferenceFile(
            path=PurePosixPath(Kind.safety) / weights.file,
            url=weights.url,
            sha256=weights.sha256,
            size_bytes=weights.size_bytes,
        )
        for weights in csam.WEIGHTS
    )
    return ReferenceEntry(
        name=csam.PACKAGE,
        kind=Kind.safety,
        files=files,
        size_bytes=sum(file.size_bytes for file in files),
    )
