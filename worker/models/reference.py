"""The horde's model reference: which models there are, and the files of each.

It is a set of JSON lists. The old format keeps a file's sha256 apart from its address
(`config.files`, `config.download`), the new one has both in `config.download`; one list may hold
either. What a stranger wrote there never becomes a path outside of the folder it belongs to.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import PurePosixPath
from types import MappingProxyType

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from hordelib.job import questions, transparency
from hordelib.job.families import BASELINES, FAMILIES
from hordelib.safety import csam
from hordelib.texts import harmless
from worker.models.files.checksums import Checksum
from worker.net.untrusted import LONGEST_NAME, Count, Label, Link, one_line, read_json, reason_of


class Kind(StrEnum):
    """A list of the reference. The value is the folder of its files, the same in every worker."""

    model = "compvis"
    control_net = "controlnet"
    annotator = (
        "controlnet/annotators"  # no list of the horde's: hordelib.job.control_weights has them
    )
    upscaler = "esrgan"
    face_fixer = "gfpgan"
    codeformer = "codeformer"
    layer_diffuse = transparency.FOLDER  # in a list of other things: hordelib.job.transparency
    alchemist = questions.FOLDER  # no list of the horde's: hordelib.job.questions has them
    safety = csam.FOLDER  # no list of the horde's: hordelib.safety.csam has it


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceFile:
    """A file of a model. `path` is below the models folder; `sha256` in lower case, or "".

    `content_hash` is of its tensors (hordelib.files.content_hash), which tells whether a file
    without a sha256 is the right one.
    `size_bytes` is 0 where the reference does not tell. `by_size` says that the file is verified by
    its size, which is known to a few digits, and its format: there is no sha256 of it.
    """

    path: PurePosixPath
    url: str
    sha256: str = ""
    purpose: str = ""
    content_hash: str = ""
    size_bytes: int = 0
    by_size: bool = False

    @property
    def checksum(self) -> Checksum:
        """What it is verified by; the sha256 where there is one."""
        if self.sha256 or not self.content_hash:
            return Checksum(self.sha256)
        return Checksum(self.content_hash, of_tensors=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceEntry:
    """A row of the reference; its main file is the first one.

    `baseline` is a name of hordelib.job.families, or "" where only the file tells. `size_bytes` is
    of all files together, 0 where the reference does not tell.
    """

    name: str
    kind: Kind
    files: tuple[ReferenceFile, ...]
    baseline: str = ""
    style: str = ""
    is_nsfw: bool = False
    inpaints: bool = False
    is_pending: bool = False  # the horde knows it, and nobody has approved it yet
    size_bytes: int = 0

    @property
    def family(self) -> str:
        """For people: the family where it is known, else the kind of thing that it is."""
        return self.baseline or self.kind.name.replace("_", " ")


@dataclass(frozen=True, slots=True)
class ReferenceList:
    """One list, read. `problems` has a line for each row that can't be used."""

    entries: tuple[ReferenceEntry, ...] = ()
    problems: tuple[str, ...] = ()


# Where a component of a model lies, by its purpose; files of every other purpose lie with the main.
_COMPONENTS: Mapping[str, str] = MappingProxyType({"vae": "vae", "text_encoders": "text_encoders"})
_MAIN_FILE_ONLY = (Kind.face_fixer,)  # the others find faces for other programs
_SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".onnx")
_ROWS = TypeAdapter(dict[str, object])
_FILE_NAME = re.compile(r"[^\W_][^/\\:]*")
_LONGEST_FILE_NAME = 240  # bytes: file systems take 255, and downloads are called `….part`
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MOST_PROBLEMS = 20  # that are told of one list


def read_list(text: str, kind: Kind) -> ReferenceList:
    """The rows of a list. Raises ValueError for what is no list, or holds no row of use."""
    rows = read_json(_ROWS, text.encode())
    entries: dict[str, ReferenceEntry] = {}
    problems: list[str] = []
    for name, row in rows.items():
        try:
            entries[name] = _entry(name, row, kind)
        except ValueError as error:
            problems.append(f"model reference, {one_line(name, 60)!r}: {reason_of(error)}")
    if not entries:
        raise ValueError("; ".join(["a list without a model that can be used", *problems[:1]]))
    if len(problems) > _MOST_PROBLEMS:
        more = f"model reference: {len(problems) - _MOST_PROBLEMS} more rows that can't be used"
        problems[_MOST_PROBLEMS:] = [more]
    return ReferenceList(tuple(entries.values()), tuple(problems))


def read_pending(text: str, kind: Kind) -> ReferenceList:
    """The rows that await approval; often there are none. Raises ValueError for what is no list."""
    if not read_json(_ROWS, text.encode()):
        return ReferenceList()
    read = read_list(text, kind)
    return replace(read, entries=tuple(replace(row, is_pending=True) for row in read.entries))


def with_pending(approved: ReferenceList, pending: ReferenceList) -> ReferenceList:
    """A pending row takes the place of an approved one of its name, and comes after all others."""
    renewed = {entry.name for entry in pending.entries}
    kept = [entry for entry in approved.entries if entry.name not in renewed]
    problems = (*approved.problems, *pending.problems)
    return ReferenceList((*kept, *pending.entries), problems)


def of_one_mind(entries: Iterable[ReferenceEntry]) -> ReferenceList:
    """Without the rows that give a file another checksum than an earlier row does."""
    known: dict[PurePosixPath, Checksum] = {}
    agreed: list[ReferenceEntry] = []
    problems: list[str] = []
    for entry in entries:
        rivals = [f for f in entry.files if known.get(f.path, f.checksum) != f.checksum]
        if rivals:
            problems.append(f"model reference, {entry.name!r}: {rivals[0].path} is another model's")
            continue
        known |= {file.path: file.checksum for file in entry.files}
        agreed.append(entry)
    return ReferenceList(tuple(agreed), tuple(problems))


# ---- what a list holds -----------------------------------------------------------------------


class _Part(BaseModel):
    """Fields that we do not know are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class _File(_Part):
    path: str
    sha256sum: str | None = None
    content_hash: str | None = None
    file_type: Label | None = None


class _Download(_Part):
    file_name: str
    file_url: Link
    sha256sum: str | None = None
    content_hash: str | None = None
    file_purpose: Label | None = None
    size_bytes: Count | None = None


class _Config(_Part):
    files: tuple[_File, ...] = ()
    download: tuple[_Download, ...] = ()


class _Row(_Part):
    config: _Config = Field(default=_Config())
    baseline: Label | None = None
    style: Label | None = None
    nsfw: bool | None = None
    inpainting: bool | None = None
    size_on_disk_bytes: Count | None = None


def _entry(name: str, row: object, kind: Kind) -> ReferenceEntry:
    """Raises ValueError for a row that is broken, or that would lead outside of the folder."""
    if harmless(name) != name or not 0 < len(name) <= LONGEST_NAME:
        raise ValueError("not a name that a model can have")
    read = _Row.model_validate(row)
    baseline = BASELINES.get((read.baseline or "").lower(), "")
    files = tuple(_files(read.config, kind))
    if not files:
        raise ValueError("has no file to download")
    files = files[:1] if kind in _MAIN_FILE_ONLY else files
    declared_bytes = max(read.size_on_disk_bytes or 0, 0)
    if len(files) == 1 and not files[0].size_bytes:
        files = (replace(files[0], size_bytes=declared_bytes),)
    is_told = all(file.size_bytes for file in files)
    return ReferenceEntry(
        name=name,
        kind=kind,
        files=tuple(sorted(files, key=lambda file: not _is_main(file, baseline))),
        baseline=baseline,
        style=(read.style or "").lower(),
        is_nsfw=bool(read.nsfw),
        inpaints=bool(read.inpainting),
        size_bytes=sum(file.size_bytes for file in files) if is_told else declared_bytes,
    )


def _files(config: _Config, kind: Kind) -> Iterable[ReferenceFile]:
    """The weights; a configuration beside them is no use to us."""
    described = {file.path: file for file in config.files}
    for download in config.download:
        if not download.file_name.lower().endswith(_SUFFIXES):
            continue
        about = described.get(download.file_name)
        purpose = download.file_purpose or (about and about.file_type) or ""
        folder = _COMPONENTS.get(purpose, kind.value)
        yield ReferenceFile(
            path=PurePosixPath(folder) / _safe_name(download.file_name),
            url=download.file_url,
            sha256=_sha256(download.sha256sum or (about and about.sha256sum)),
            content_hash=_sha256(download.content_hash or (about and about.content_hash)),
            purpose=purpose,
            size_bytes=max(download.size_bytes or 0, 0),
        )


def _sha256(told: str | None) -> str:
    """In lower case; "" for what is none, such as the "FIXME" of a row that is not finished."""
    sha256 = (told or "").lower()
    return sha256 if _SHA256.fullmatch(sha256) else ""


def _safe_name(name: str) -> str:
    is_short = len(name.encode("utf-8", "replace")) <= _LONGEST_FILE_NAME
    if not (is_short and name.isprintable() and _FILE_NAME.fullmatch(name)):
        raise ValueError(f"{one_line(name, 60)!r} is no name for a file")
    return name


def _is_main(file: ReferenceFile, baseline: str) -> bool:
    """Whether it is the file that the family's other ones are found by."""
    family = FAMILIES.get(baseline)
    if family is not None and family.loaders[0].file_type and file.purpose:
        return file.purpose == family.loaders[0].file_type
    return file.purpose not in _COMPONENTS
