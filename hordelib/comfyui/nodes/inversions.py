"""The vectors of textual inversions, read once for all mentions, and never more than are used."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from hordelib.comfyui.loaders.loras import is_sane
from hordelib.files.embeddings import MOST_VECTORS, Unusable, Widths, look_at
from hordelib.job.notes import MetadataValue

KEPT = 64  # files; a few kB each as a rule, 0.8 MB at most


class Inversions:
    """Those in one folder that a model's text encoders can use. No folder has none."""

    def __init__(self, folder: Path | None, encoders: Widths):
        self._folder = folder
        self._encoders = encoders
        self._looked: dict[str, Path] = {}  # by name, as it was counted

    def count(self, name: str) -> int:
        """How many vectors the file has. Raises Unusable, also where they are not numbers."""
        looked = look_at(name, self._folder, self._encoders)
        self._vectors(looked.path)
        self._looked[name] = looked.path
        return looked.vectors

    def take(self, written: str, encoder: str) -> tuple[Tensor | None, str]:
        """What ComfyUI's tokenizer asks for: the vectors of a mention, and the words after it.

        None where no such file was counted: the words count all the same. To look at a file again
        for each mention and each encoder would take seconds, where its header is long.
        """
        name, *words = written.split()
        try:
            vectors = self._vectors(self._looked[name])
        except (KeyError, OSError, Unusable):
            return None, " ".join(words)
        chosen = vectors[encoder] if encoder in vectors else next(iter(vectors.values()))
        return chosen, " ".join(words)

    def _vectors(self, path: Path) -> Mapping[str, Tensor]:
        status = path.stat()
        return _read(path, status.st_mtime_ns, status.st_size)


@lru_cache(KEPT)
def _read(path: Path, _mtime_ns: int, _size: int) -> Mapping[str, Tensor]:
    """The first vectors of each of the file's tensors, (vectors, width). Raises Unusable."""
    try:
        with safe_open(path, "pt") as file:
            names: list[str] = file.keys()
            stored = {name: file.get_slice(name) for name in names}
            vectors = {
                name: each[:MOST_VECTORS] if len(each.get_shape()) > 1 else each[:]
                for name, each in stored.items()
            }
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise Unusable(MetadataValue.PARSE_FAILED) from error
    if not all(each.is_floating_point() and is_sane(each) for each in vectors.values()):
        raise Unusable(MetadataValue.PARSE_FAILED)
    return {name: each.float().reshape(-1, each.shape[-1]) for name, each in vectors.items()}
