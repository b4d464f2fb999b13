"""Takes models off the disk, without what other models need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hordelib.files.whole_files import PART
from worker.models.files.on_disk import Stock
from worker.models.inventory import ModelsFolder
from worker.models.sites import Reference


@dataclass(frozen=True, slots=True)
class Removed:
    """`kept` has a line for each file that stays, with whose it is."""

    freed_bytes: int
    kept: tuple[str, ...]


def remove_files(folder: ModelsFolder, reference: Reference, leaving: Sequence[Stock]) -> Removed:
    """Their files, and what was begun of them. Raises OSError."""
    shared = _shared(folder, reference, leaving)
    paths = {file.path for stock in leaving for file in stock.files}
    freed_bytes = sum(_unlinked_bytes(path) for path in paths if path not in shared)
    kept = [f"{path.name} stays: it is {shared[path]}'s too" for path in paths if path in shared]
    return Removed(freed_bytes, tuple(kept))


def _shared(
    folder: ModelsFolder, reference: Reference, leaving: Sequence[Stock]
) -> Mapping[Path, str]:
    """The names of the models that need each file beside those."""
    gone = [stock.entry for stock in leaving]
    staying = (row for row in reference.entries.values() if row not in gone)
    files = {folder.path / file.path: row.name for row in staying for file in row.files}
    return files | {path: name for name, path in folder.customs.items()}


def _unlinked_bytes(path: Path) -> int:
    freed_bytes = 0
    for each in (path, path.with_name(path.name + PART)):
        if each.is_file():
            freed_bytes += each.stat().st_size
            each.unlink()
    return freed_bytes
