"""Model files on disk: which file serves a model's name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from hordelib.errors import ModelMissing

CHECKPOINTS = (
    "compvis"  # the folder's name in every horde worker: existing folders serve as they are
)
SUFFIXES = (".safetensors", ".sft", ".ckpt")  # the first is preferred
# Files that the horde's model reference calls otherwise than their models.
REFERENCE_FILES: Mapping[str, str] = MappingProxyType(
    {
        "Stable Cascade 1.0": "stable_cascade_stage_c",
        "Flux.1-Schnell fp8 (Compact)": "flux1CompactCLIPAnd_Flux1SchnellFp8",
        "Qwen-Image_fp8": "qwen_image_fp8_e4m3fn",
        "Z-Image-Turbo": "z_image_turbo_bf16",
    }
)


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
        ours = [path for path in found if path.suffix in SUFFIXES and path.is_file()]
        return sorted(ours, key=lambda path: (SUFFIXES.index(path.suffix), path))

    @property
    def _checkpoints(self) -> Path:
        return self.folder / CHECKPOINTS

    def _called_like(self, name: str) -> Path | None:
        return next((path for path in self.files() if _plain(path.stem) == _plain(name)), None)


def _plain(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())
