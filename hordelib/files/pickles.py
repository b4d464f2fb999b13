"""Pickled checkpoints of torch.save: what is in one, told without unpickling anything.

ComfyUI reads them with torch's `weights_only`, which builds tensors and plain containers and
refuses everything else. Here the pickle's opcodes are followed (`pickle_walk.py`), and a few limits
hold whatever the file says.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from hordelib.errors import ModelBroken
from hordelib.files.file_kinds import FileKind
from hordelib.files.pickle_walk import TOO_LONG, PickledTensor, Walk

Shapes = Mapping[str, tuple[int, ...]]

_MOST_BYTES = 8 << 20  # of the list of tensors, and of the zip's list of files
_CHUNK_BYTES = 1 << 16
_OLD_PREFACE = 3  # pickles before that of the tensors: a magic number, a version, the machine
_STORED, _DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED

_NO_PICKLE = "cut off, or none of torch.save"


@dataclass(frozen=True, slots=True)
class PickleContents:
    """Shapes of its tensors by name, and what it names beyond tensors, which torch refuses."""

    shapes: Shapes
    refused: tuple[str, ...]


def insist_on_safe_pickle(path: Path, kind: FileKind) -> None:
    """Raises ModelBroken, naming the file and the remedy, for a pickle that asks for more.

    As for what is cut off, or no file of torch.save.
    """
    if refused := read_pickle(path, kind).refused:
        raise ModelBroken(
            f"{path}: a pickle that could run code when it is read ({', '.join(refused[:3])});"
            " use a safetensors file of this model"
        )


def read_pickle(path: Path, kind: FileKind) -> PickleContents:
    """What the file holds, in bounded time and memory.

    Raises ModelBroken, naming the file and the remedy, for one that is damaged or no checkpoint.
    """
    try:
        walk = _of_old_torch(path) if kind is FileKind.old_pickle else _of_zip(path)
        saved = walk.result
    except _UNREADABLE as error:
        reason = str(error) or type(error).__name__
        raise ModelBroken(f"{path}: a damaged pickle ({reason}); fetch it again") from error
    return PickleContents(_shapes(saved), tuple(sorted(walk.refused)))


_UNREADABLE = (
    *(ArithmeticError, AttributeError, EOFError, LookupError, OSError, RuntimeError, TypeError),
    *(ValueError, zipfile.BadZipFile, zlib.error),
)


def _of_old_torch(path: Path) -> Walk:
    """The format from before torch 1.6: pickles in a row, then the tensors."""
    with path.open("rb") as file:
        content = io.BytesIO(file.read(_MOST_BYTES))
    walk = Walk()
    for _ in range(_OLD_PREFACE + 1):
        walk.follow(content)
    return walk


def _of_zip(path: Path) -> Walk:
    """A zip with one pickle of the tensors' names and shapes, and a file for each tensor."""
    with _ShortReads(io.FileIO(path)) as file, zipfile.ZipFile(file) as archive:
        names = [name for name in archive.namelist() if name.rpartition("/")[2] == "data.pkl"]
        if len(names) != 1:
            raise ValueError(_NO_PICKLE)
        if names[0].replace("data.pkl", "constants.pkl") in archive.NameToInfo:
            raise ValueError("a program of TorchScript, no checkpoint")
        content = io.BytesIO(_member(archive, archive.getinfo(names[0])))
    walk = Walk()
    walk.follow(content)
    return walk


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    if info.flag_bits & 1 or info.compress_type not in (_STORED, _DEFLATED):
        raise ValueError("its list of tensors is encrypted, or packed in an unusual way")
    content = bytearray()
    with archive.open(info) as file:
        while chunk := file.read(_CHUNK_BYTES):
            content += chunk
            if len(content) > _MOST_BYTES:
                raise ValueError(TOO_LONG)
    return bytes(content)


class _ShortReads(io.BufferedReader):
    """A file of which nobody reads much at once, as zipfile would its list of files."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Raises ValueError for more than _MOST_BYTES."""
        wanted = _MOST_BYTES + 1 if size is None or size < 0 else size
        content = super().read(min(wanted, _MOST_BYTES + 1))
        if len(content) > _MOST_BYTES:
            raise ValueError("its list of files is longer than that of any checkpoint")
        return content


def _shapes(saved: object) -> Shapes:
    """As ComfyUI takes a checkpoint apart: its tensors may lie under `state_dict`."""
    found = _named(saved)
    if "state_dict" in found:
        found = _named(found["state_dict"])
    elif len(found) == 1:
        found = _named(next(iter(found.values()))) or found
    return {name: each.shape for name, each in found.items() if isinstance(each, PickledTensor)}


def _named(value: object) -> Mapping[str, object]:
    return cast("Mapping[str, object]", value) if isinstance(value, dict) else {}
