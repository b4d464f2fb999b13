"""Textual inversions on disk, and the places in a prompt that name them. No torch.

ComfyUI skips an embedding that is missing, broken, or of the wrong width, and says so in its log
only. Here each reference is checked first, so that what is left out can be told to the client.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from hordelib.errors import ModelBroken
from hordelib.files.safetensors_header import ADAPTER_BYTES, read_header
from hordelib.job.notes import GenMetadata, MetadataType, MetadataValue

SUFFIX = ".safetensors"

# A name ends where a prompt's syntax goes on. ComfyUI knows a reference only after a space. Where
# parentheses hold nothing else, they and their weight go with it.
_REFERENCE = re.compile(
    r"(?P<open>\(\s*)?embedding:(?P<name>[^\s,:;()\[\]{}<>|]*)"
    r"(?P<close>\s*(?::\s*[-+]?[\d.]+\s*)?\))?"
)

# What a prompt may have: more of it is cut, and said so. Trainers make up to 75 vectors of a word.
MOST_VECTORS = 150  # of one textual inversion
MOST_MENTIONS = 50
MOST_TOKENS = 2_400  # vectors of all mentions: as many tokens as a prompt has at most
LONGEST_NAME = 200  # bytes

Widths = Mapping[str, int]  # of each text encoder's token vectors, by ComfyUI's name for it
Count = Callable[[str], int]  # vectors of a textual inversion, by its name; raises Unusable


class Unusable(Exception):
    """A textual inversion that can't be used; `value` is what the client is told."""

    def __init__(self, value: MetadataValue):
        super().__init__(value.value)
        self.value = value


@dataclass(frozen=True, slots=True)
class Looked:
    """What a file's header says: how many vectors its longest tensor has."""

    path: Path
    vectors: int


def resolve(text: str, count: Count) -> tuple[str, tuple[GenMetadata, ...]]:
    """The prompt with only those references that can be used, and notes about the others.

    Each name is looked at once. What there is of mentions and vectors beyond the limits is left out
    before anything is tokenized.
    """
    reading = _Reading(count)
    return _REFERENCE.sub(reading.replace, text), tuple(reading.notes)


def without_references(
    text: str, names: Collection[str] = ()
) -> tuple[str, tuple[GenMetadata, ...]]:
    """The prompt without those textual inversions, or any, and a note for each that it had."""

    def refuse(name: str) -> int:
        if names and name not in names:
            return 0
        raise Unusable(MetadataValue.PARSE_FAILED)

    return resolve(text, refuse)


def mentioned(text: str) -> tuple[str, ...]:
    """The names of the textual inversions that a prompt refers to, each once."""
    names: dict[str, int] = {}
    resolve(text, lambda name: names.setdefault(name, 0))
    return tuple(names)


class _Reading:
    """One pass over a prompt. `notes` are kept as keys, each once."""

    def __init__(self, count: Count):
        self._count = lru_cache(maxsize=None)(count)
        self._faults: dict[str, MetadataValue] = {}
        self._mentions = self._tokens = 0
        self.notes: dict[GenMetadata, None] = {}

    def replace(self, reference: re.Match[str]) -> str:
        """What stands in its place: the reference itself, set off by spaces, or what it leaves."""
        opened, written, closed = (part or "" for part in reference.groups())
        name = written.rstrip(".!?").removesuffix(SUFFIX)
        rest = written.removeprefix(name).removeprefix(SUFFIX)
        note = self._trouble(name)
        if note is None:
            return f"{opened} embedding:{name} {rest}{closed}"
        self.notes[note] = None
        # A space, since what stands around it must not become a reference.
        return f" {rest}" if opened and closed else f"{opened}{rest}{closed}"

    def _trouble(self, name: str) -> GenMetadata | None:
        self._mentions += 1
        if self._mentions > MOST_MENTIONS:
            return _told(f"textual inversions after the first {MOST_MENTIONS} in a prompt left out")
        if name in self._faults:
            return GenMetadata(MetadataType.TI, self._faults[name], name or "embedding:")
        try:
            vectors = self._count(name)
        except Unusable as error:
            self._faults[name] = error.value
            return GenMetadata(MetadataType.TI, error.value, name or "embedding:")
        if self._tokens + min(vectors, MOST_VECTORS) > MOST_TOKENS:
            return _told(f"textual inversions beyond {MOST_TOKENS} vectors in a prompt left out")
        self._tokens += min(vectors, MOST_VECTORS)
        if vectors > MOST_VECTORS:
            cut = f"textual inversion {name} has {vectors} vectors: {MOST_VECTORS} were used"
            self.notes[_told(cut)] = None
        return None


def _told(told: str) -> GenMetadata:
    return GenMetadata(MetadataType.INFORMATION, MetadataValue.SEE_REF, told)


def look_at(name: str, folder: Path | None, encoders: Widths) -> Looked:
    """What the header of the textual inversion of this name says.

    A name means the file of that stem in `folder`, and never one elsewhere. Raises Unusable.
    """
    path = None if folder is None else find(name, folder)
    if path is None:
        raise Unusable(MetadataValue.DOWNLOAD_FAILED)
    try:
        shapes = read_shapes(path)
    except ValueError as error:
        raise Unusable(MetadataValue.PARSE_FAILED) from error
    if not fits({tensor: shape[-1] for tensor, shape in shapes.items()}, encoders):
        raise Unusable(MetadataValue.BASELINE_MISMATCH)
    return Looked(path, max(1 if len(shape) == 1 else shape[0] for shape in shapes.values()))


def find(name: str, folder: Path) -> Path | None:
    """The file of a textual inversion; None where the name is a path, or there is no such file."""
    if not name or name in (".", "..") or "/" in name or "\\" in name or "\0" in name:
        return None
    if len(name.encode("utf-8", "replace")) > LONGEST_NAME:
        return None
    path = folder / f"{name}{SUFFIX}"
    return path if path.is_file() else None


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Shape of each tensor by its name, from the file's header alone.

    Raises ValueError where the file is no textual inversion: not safetensors, cut short, or with a
    tensor that is no list of vectors.
    """
    try:
        tensors = read_header(path, ADAPTER_BYTES).tensors
    except ModelBroken as error:
        raise ValueError(str(error)) from error
    if not tensors or any(len(t.shape) not in (1, 2) or 0 in t.shape for t in tensors.values()):
        raise ValueError(f"{path}: no textual inversion: its tensors are no lists of vectors")
    return {name: tensor.shape for name, tensor in tensors.items()}


def fits(widths: Widths, encoders: Widths) -> bool:
    """Whether a file of these widths was made for a model with these text encoders.

    A file for one encoder may call its tensor anything, one for several names each. That of a model
    with more encoders is refused, though ComfyUI would use a part of it: it was made for another.
    """
    is_single = len(encoders) == 1
    return dict(widths) == dict(encoders) or (
        is_single and set(widths.values()) == set(encoders.values())
    )


def fingerprint(folder: Path) -> str:
    """Changes when a textual inversion in the folder comes, goes, or is replaced."""
    if not folder.is_dir():
        return ""
    with os.scandir(folder) as entries:
        found = [(e.name, e.stat().st_mtime_ns) for e in entries if e.name.endswith(SUFFIX)]
    return json.dumps(sorted(found))
