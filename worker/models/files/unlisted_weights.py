"""Weights that no list of the horde's has, as rows like those of the model reference."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath

from hordelib.job.control_weights import Weights
from hordelib.job.questions import BLIP, CLIP, CLIP_FOLDER, FILES, HEAD, VOCABULARY, Topic
from hordelib.job.transparency import LAYER_DIFFUSE
from hordelib.safety import csam
from worker.models.reference import Kind, ReferenceEntry, ReferenceFile


def safety_entry() -> ReferenceEntry:
    """What horde_safety needs."""
    return _entry(csam.PACKAGE, Kind.safety, csam.WEIGHTS)


def transparency_entries() -> tuple[ReferenceEntry, ...]:
    """LayerDiffuse's patches and decoder, for each family that has transparent pictures."""
    return tuple(
        _entry(row.name, Kind.layer_diffuse, row.weights) for row in LAYER_DIFFUSE.values()
    )


# What captions, interrogations and scores need, by the names of the rows.
_QUESTIONS: Mapping[str, tuple[Weights, ...]] = {
    "blip_caption": (BLIP, VOCABULARY),
    "clip_vit_l_14": (CLIP,),
    "aesthetic_head": (HEAD,),
}


def question_entries(topics: Iterable[Topic] = tuple(Topic)) -> list[ReferenceEntry]:
    """What these topics need, each file once."""
    needed = {weights for topic in topics for weights in FILES[topic]}
    rows = _QUESTIONS.items()
    return [_entry(name, Kind.alchemist, files) for name, files in rows if needed & set(files)]


def _entry(name: str, kind: Kind, weights: Sequence[Weights]) -> ReferenceEntry:
    files = tuple(
        ReferenceFile(
            path=PurePosixPath(CLIP_FOLDER if each is CLIP else kind) / each.file,
            url=each.url,
            sha256=each.sha256,
            size_bytes=each.size_bytes,
        )
        for each in weights
    )
    size_bytes = sum(file.size_bytes for file in files)
    return ReferenceEntry(name=name, kind=kind, files=files, size_bytes=size_bytes)
