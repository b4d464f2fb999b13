"""Which file is read in which way, and how one tells whether it is still the same file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

from hordelib.errors import ModelMissing
from hordelib.job.control_types import ControlType, annotator_files
from hordelib.job.questions import VOCABULARY

CHECKPOINT_PARTS = ("unet", "text_encoder", "vae")  # as ComfyUI's loader puts them out


@dataclass(frozen=True, slots=True)
class ModelKey:
    """One file, read in one way. `variant` tells apart what the same reader makes of it."""

    kind: str
    path: Path
    variant: str = ""

    def __str__(self) -> str:
        return f"{self.path.name} ({self.variant or self.kind})"


class FileStamp(NamedTuple):
    """Tells a file from the one that took its place."""

    device: int
    inode: int
    size_bytes: int
    changed_ns: int

    @classmethod
    def of(cls, path: Path) -> Self:
        """Raises ModelMissing where there is no such file."""
        try:
            stat = path.stat()
        except OSError as error:
            raise ModelMissing(f"{path.name}: no such file in {path.parent}") from error
        return cls(stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)


def size_bytes(key: ModelKey) -> int:
    """Of the key's file and those that belong to it, or of all files of its folder."""
    return sum(file.stat().st_size for file in files_of(key) if file.is_file())


def files_of(key: ModelKey) -> Iterable[Path]:
    """All that is read of it, in main memory or on the device."""
    if key.kind == "annotator":
        return annotator_files(ControlType(key.variant), key.path)
    if (key.kind, key.variant) == ("picture_reader", "captioner"):
        return key.path, key.path.with_name(VOCABULARY.file)
    return key.path.rglob("*") if key.path.is_dir() else [key.path]
