"""What can be done to a finished picture: the horde's names, and the files that serve them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hordelib.errors import ModelMissing
from hordelib.job.params import PostProcessor, ProcessorKind

SUFFIXES = (".pth", ".safetensors", ".pt", ".onnx")
UPSCALERS = "esrgan"  # the folder in every horde worker: any file of it serves by its stem


@dataclass(frozen=True, slots=True)
class Row:
    """One of the horde's names (its API's `post_processing`).

    `stems` are names that its file may have without the suffix, the model reference's own first;
    `scale` is how many times longer it makes each side.
    """

    name: str
    kind: ProcessorKind
    folder: str
    stems: tuple[str, ...]
    scale: int = 1

    @property
    def file(self) -> str:
        """Where its file is expected, for people: below the models folder."""
        suffix = ".onnx" if self.kind is ProcessorKind.background else ".pth"
        return f"{self.folder}/{self.stems[0]}{suffix}"


def _upscaler(name: str, scale: int = 4) -> Row:
    return Row(name, ProcessorKind.upscaler, UPSCALERS, (name,), scale)


def _face_fixer(name: str, folder: str, *stems: str) -> Row:
    return Row(name, ProcessorKind.face_fixer, folder, stems)


_ROWS = (
    _face_fixer("GFPGAN", "gfpgan", "GFPGANv1.4"),
    _face_fixer("GFPGANv1.3", "gfpgan", "GFPGANv1.3"),
    _face_fixer("RestoreFormer", "gfpgan", "RestoreFormer"),
    _face_fixer("CodeFormers", "codeformer", "CodeFormers", "codeformer"),
    _upscaler("RealESRGAN_x4plus"),
    _upscaler("RealESRGAN_x2plus", 2),
    _upscaler("RealESRGAN_x4plus_anime_6B"),
    _upscaler("NMKD_Siax"),
    _upscaler("4x_AnimeSharp"),
    _upscaler("4xNomos8kSC"),
    _upscaler("4xLSDIRplus"),
    _upscaler("4xNomosWebPhoto_RealPLKSR"),
    _upscaler("4xNomos2_realplksr_dysample"),
    _upscaler("4xNomos2_hq_dat2"),
    _upscaler("2xModernSpanimationV1", 2),
    Row("strip_background", ProcessorKind.background, "rembg", ("u2net",)),
)
POST_PROCESSORS = {row.name: row for row in _ROWS}

_ORDER = tuple(ProcessorKind)


def resolve(models: Path, names: Iterable[str]) -> tuple[PostProcessor, ...]:
    """The post-processors of a payload's names, each once, in the order they run.

    Faces first, because a face fixer works at 512 pixels and an enlarged face would lose by it; the
    background last, because nothing before it knows of transparency. Within a kind the request's
    order stays. Raises ModelMissing, which names the file, for what can't be done here.
    """
    found = [_resolve(models, name) for name in dict.fromkeys(names)]
    return tuple(sorted(found, key=lambda processor: _ORDER.index(processor.kind)))


def missing(models: Path) -> dict[str, str]:
    """The horde's names that can't be served, with the file that is expected for each."""
    return {row.name: row.file for row in _ROWS if _file(models, row) is None}


def named_files(models: Path) -> frozenset[Path]:
    """The files that serve the horde's names."""
    found = (_file(models, row) for row in _ROWS)
    return frozenset(path for path in found if path is not None)


def served(models: Path) -> frozenset[str]:
    """Every name that can be served, those of the folder's other upscalers among them."""
    named = frozenset(row.name for row in _ROWS if _file(models, row) is not None)
    return named | frozenset(path.stem for path in _files(models / UPSCALERS))


def _resolve(models: Path, name: str) -> PostProcessor:
    row = POST_PROCESSORS.get(name) or _upscaler(name)
    path = _file(models, row)
    if path is None:
        raise ModelMissing(f"post-processor {name!r}: there is no {models / row.file}")
    return PostProcessor(name, row.kind, path)


def _file(models: Path, row: Row) -> Path | None:
    """Compared with what the folder has, so that a client's name is never part of a path."""
    files = {path.stem: path for path in _files(models / row.folder)}
    return next((files[stem] for stem in row.stems if stem in files), None)


def _files(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES)
