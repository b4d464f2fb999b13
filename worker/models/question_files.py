"""Weights of networks that say something of a picture, as rows like those of the reference."""

from __future__ import annotations

from pathlib import PurePosixPath

from hordelib.job.control_weights import Weights
from hordelib.job.questions import BLIP, CLIP, CLIP_FOLDER, FILES, HEAD, VOCABULARY, Topic
from worker.models.reference import Kind, ReferenceEntry, ReferenceFile

_ROWS = {
    "blip_caption": (BLIP, VOCABULARY),
    "clip_vit_l_14": (CLIP,),
    "aesthetic_head": (HEAD,),
}


def question_entries(topics: frozenset[Topic] = frozenset(Topic)) -> list[ReferenceEntry]:
    """What these topics need, each file once."""
    needed = {weights for topic in topics for weights in FILES[topic]}
    return [_entry(name, files) for name, files in _ROWS.items() if needed & set(files)]


def _entry(name: str, files: tuple[Weights, ...]) -> ReferenceEntry:
    return ReferenceEntry(
        name=name,
        kind=Kind.alchemist,
        files=tuple(map(_file, files)),
        size_bytes=sum(weights.size_bytes for weights in files),
    )


def _file(weights: Weights) -> ReferenceFile:
    folder = CLIP_FOLDER if weights is CLIP else Kind.alchemist
    return ReferenceFile(
        path=PurePosixPath(folder) / weights.file,
        url=weights.url,
        sha256=weights.sha256,
        size_bytes=weights.size_bytes,
    )
