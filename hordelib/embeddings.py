"""Textual inversions on disk, and the places in a prompt that name them. No torch.

ComfyUI skips an embedding that is missing, broken, or of the wrong width, and says so in its log
only. Here each reference is checked first, so that what is left out can be told to the client.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

from hordelib.errors import ModelBroken
from hordelib.gen_metadata import GenMetadata, MetadataType, MetadataValue
from hordelib.safetensors_header import ADAPTER_BYTES, read_header

SUFFIX = ".safetensors"

# A name ends where a prompt's syntax goes on. ComfyUI knows a reference only after a space. Where
# parentheses hold nothing else, they and their weight go with it.
_REFERENCE = re.compile(
    r"(?P<open>\(\s*)?embedding:(?P<name>[^\s,:;()\[\]{}<>|]*)"
    r"(?P<close>\s*(?::\s*[-+]?[\d.]+\s*)?\))?"
)

Widths = Mapping[str, int]  # of each text encoder's token vectors, by ComfyUI's name for it


def resolve(
    text: str, folder: Path | None, encoders: Widths
) -> tuple[str, tuple[GenMetadata, ...]]:
    """The prompt with only those references that can be used, and notes about the others.

    A name means the file of that stem in `folder`, and never one elsewhere.
    """
    notes: dict[GenMetadata, None] = {}

    def check(reference: re.Match[str]) -> str:
        opened, written, closed = (part or "" for part in reference.groups())
        name = written.rstrip(".!?").removesuffix(SUFFIX)
        rest = written.removeprefix(name).removeprefix(SUFFIX)
        fault = _fault(name, folder, encoders)
        if fault is None:
            return f"{opened} embedding:{name} {rest}{closed}"
        notes[GenMetadata(MetadataType.TI, fault, name or "embedding:")] = None
        return rest if opened and closed else f"{opened}{rest}{closed}"

    return _REFERENCE.sub(check, text), tuple(notes)


def _fault(name: str, folder: Path | None, encoders: Widths) -> MetadataValue | None:
    """Why the textual inversion of this name can't be used; None: it can."""
    path = None if folder is None else find(name, folder)
    if path is None:
        return MetadataValue.DOWNLOAD_FAILED
    try:
        widths = read_widths(path)
    except ValueError:
        return MetadataValue.PARSE_FAILED
    return None if fits(widths, encoders) else MetadataValue.BASELINE_MISMATCH


def find(name: str, folder: Path) -> Path | None:
    """The file of a textual inversion; None where the name is a path, or there is no such file."""
    if not name or name in (".", "..") or "/" in name or "\\" in name or "\0" in name:
        return None
    path = folder / f"{name}{SUFFIX}"
    return path if path.is_file() else None


def read_widths(path: Path) -> dict[str, int]:
    """Width of each tensor by its name, from the file's header alone.

    Raises ValueError where the file is no textual inversion: not safetensors, cut short, or with a
    tensor that is no list of vectors.
    """
    try:
        tensors = read_header(path, ADAPTER_BYTES).tensors
    except ModelBroken as error:
        raise ValueError(str(error)) from error
    if not tensors or any(len(t.shape) not in (1, 2) or 0 in t.shape for t in tensors.values()):
        raise ValueError(f"{path}: no textual inversion: its tensors are no lists of vectors")
    return {name: tensor.shape[-1] for name, tensor in tensors.items()}


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
