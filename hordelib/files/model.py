"""What serves one of the horde's model names: its family and its files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from hordelib.files.headers import ORDINARY, detect
from hordelib.job.families import Family, Loader

INPAINTING, INSTRUCT = 9, 8  # channels of the UNet's input, where it is not ORDINARY


@dataclass(frozen=True, slots=True)
class Model:
    """One model on disk.

    `files` has a file for each loader of the family's spine, by the loader's title. `channels` of
    the UNet's input: 9 for an inpainting model (latent, mask, masked latent), 8 for an
    instruct-pix2pix one (latent, source latent), else ORDINARY, whatever the family's latent has.
    """

    name: str
    family: Family
    files: Mapping[str, Path] = field(hash=False)
    channels: int = ORDINARY

    @classmethod
    def of_checkpoint(cls, path: Path | str, name: str = "") -> Self:
        """The model of this main file; the file itself says which family it is of.

        Where the family has more files, they are those that the model reference names, in the
        folders where every horde worker has them. Raises ModelMissing or ModelBroken, naming the
        file.
        """
        path = Path(path).resolve()
        family, channels = detect(path)
        main, *others = family.loaders
        files = {loader.title: _beside(path, loader) for loader in others}
        return cls(name or path.stem, family, {main.title: path, **files}, channels)

    @property
    def main(self) -> Path:
        """The file that says which family the model is of."""
        return self.files[self.family.loaders[0].title]

    @property
    def inpaints(self) -> bool:
        """Whether it was trained to repaint, and needs a mask for every picture."""
        return self.channels == INPAINTING


def _beside(main: Path, loader: Loader) -> Path:
    return (main.parent / loader.folder / loader.file).resolve()
