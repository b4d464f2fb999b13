"""Files of control types that no list of the horde's has, as rows like those of its reference."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath

from hordelib.job.control_types import CLASSIC, CONTROL_TYPES, ControlType
from hordelib.job.control_weights import Weights
from worker.models.reference import Kind, ReferenceEntry, ReferenceFile


def annotator_entries(controls: Iterable[ControlType] = tuple(ControlType)) -> list[ReferenceEntry]:
    """Every file that some of these types' annotators need, each once."""
    files = (weights for control in controls for weights in CONTROL_TYPES[control].weights)
    return [_entry(Kind.annotator, weights) for weights in dict.fromkeys(files)]


def control_net_entries() -> list[ReferenceEntry]:
    """The ControlNets that the horde's list lacks."""
    files = dict.fromkeys(row.control_net for row in CONTROL_TYPES.values())
    return [_entry(Kind.control_net, weights) for weights in files if not weights.is_listed]


def file_names(controls: Iterable[ControlType]) -> frozenset[str]:
    """Names of all files that these types need."""
    rows = [CONTROL_TYPES[control] for control in controls]
    return frozenset(each.file for row in rows for each in (row.control_net, *row.weights))


CLASSIC_NAMES = file_names(CLASSIC)
NON_COMMERCIAL_NAMES = frozenset(
    each.file for row in CONTROL_TYPES.values() for each in row.weights if each.licence
)


def _entry(kind: Kind, weights: Weights) -> ReferenceEntry:
    path = PurePosixPath(kind) / weights.file
    file = ReferenceFile(
        path=path,
        url=weights.url,
        sha256=weights.sha256,
        size_bytes=weights.size_bytes,
        by_size=not weights.sha256,
    )
    return ReferenceEntry(name=path.stem, kind=kind, files=(file,), size_bytes=weights.size_bytes)
