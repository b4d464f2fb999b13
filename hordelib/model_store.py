"""Model files on disk: which file serves a model's name, and whether it is whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from hordelib.errors import ModelBroken, ModelMissing
from hordelib.pickles import insist_on_safe_pickle

CHECKPOINTS = (
    "compvis"  # the folder's name in every horde worker: existing folders serve as they are
)
SUFFIXES = (".safetensors", ".ckpt")  # the first is preferred
# Files that the horde's model reference calls otherwise than their models.
REFERENCE_FILES: Mapping[str, str] = MappingProxyType(
    {
        "Stable Cascade 1.0": "stable_cascade_stage_c",
        "Flux.1-Schnell fp8 (Compact)": "flux1CompactCLIPAnd_Flux1SchnellFp8",
        "Qwen-Image_fp8": "qwen_image_fp8_e4m3fn",
        "Z-Image-Turbo": "z_image_turbo_bf16",
    }
)

_LENGTH_BYTES = 8
_MAX_HEADER_BYTES = 100 << 20  # the format's own limit


@dataclass(frozen=True, slots=True)
class ModelStore:
    """Checkpoints by the horde's model names.

    A name is served by the file that `custom` gives it, else by the file in `folder`/compvis that
    is called like it: case, spaces, underscores, dots and dashes make no difference.
    """

    folder: Path
    custom: Mapping[str, Path] = field(default_factory=dict[str, Path])

    def checkpoint(self, name: str) -> Path:
        """The file of a model. Raises ModelMissing, naming where it was looked for."""
        path = self.custom.get(name) or self._called_like(REFERENCE_FILES.get(name, name))
        if path is None:
            raise ModelMissing(f"model {name!r}: no file of that name in {self._checkpoints}")
        if not path.is_file():
            raise ModelMissing(f"model {name!r}: there is no file {path}")
        return path

    def files(self) -> list[Path]:
        """Every checkpoint file of the folder, those first that are no pickles."""
        found = self._checkpoints.glob("*") if self._checkpoints.is_dir() else ()
        ours = [path for path in found if path.suffix in SUFFIXES]
        return sorted(ours, key=lambda path: (SUFFIXES.index(path.suffix), path))

    @property
    def _checkpoints(self) -> Path:
        return self.folder / CHECKPOINTS

    def _called_like(self, name: str) -> Path | None:
        return next((path for path in self.files() if _plain(path.stem) == _plain(name)), None)


def verify_checkpoint(path: Path) -> None:
    """See that a safetensors file is as long as its header says, and that a pickle runs no code.

    Reads only the list of tensors. Raises ModelBroken, naming the file and the remedy.
    """
    if path.suffix != ".safetensors":
        insist_on_safe_pickle(path)
        return
    try:
        size_bytes = _promised_bytes(path)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ModelBroken(f"{path}: not a safetensors file ({error}); fetch it again") from error
    if size_bytes != path.stat().st_size:
        raise ModelBroken(
            f"{path}: {path.stat().st_size} bytes where its header promises {size_bytes};"
            " it is cut off or damaged: fetch it again"
        )


def _promised_bytes(path: Path) -> int:
    """The file size that a safetensors header implies (format: length, JSON, tensors)."""
    with path.open("rb") as file:
        header_bytes = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        if not 0 < header_bytes <= _MAX_HEADER_BYTES:
            raise ValueError("no header")
        header: dict[str, dict[str, list[int]]] = dict(json.loads(file.read(header_bytes)))
    ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
    return _LENGTH_BYTES + header_bytes + max(ends, default=0)


def _plain(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())
