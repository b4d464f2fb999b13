"""CivitAI's REST interface (/api/v1): which files a model has, and what they were made for."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, TypeVar
from urllib.parse import urlencode

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from hordelib.errors import DownloadFailed, DownloadRefused
from worker.loras.files import SUFFIX
from worker.net.fetch import Web
from worker.net.untrusted import Label, Link, Name, read_json, reason_of

SITES = ("https://civitai.com", "https://civitai.red")  # one data base; the second shows all of it
HORDELING = "https://hordeling.aihorde.net"

_MOST_BYTES = 16 << 20
_SEARCH_LIMIT = 20
_LORA_TAG = re.compile(r"<[^:<>]*+:([^:<>]*+)[^<>]*+>")  # of another program's prompts
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MODEL_FILES = ("Model", "Pruned Model")
_MOST_TRIGGERS, _LONGEST_TRIGGER = 100, 1000

Read = TypeVar("Read", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class CivitaiFile:
    """A file of a version. `sha256` in lower case, "" where the site has not scanned it."""

    url: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CivitaiVersion:
    """A version of a model: the thing that has files. `file` is the main one in safetensors."""

    model_id: int
    version_id: int
    model_name: str
    version_name: str
    type: str  # LORA, LoCon, DoRA, TextualInversion, Checkpoint…
    base_model: str
    triggers: tuple[str, ...]
    is_nsfw: bool
    is_downloadable: bool  # not in early access, not for the site's own generator only
    file: CivitaiFile | None


@dataclass(frozen=True, slots=True)
class CivitaiModel:
    """A model and its versions, newest first."""

    name: str
    versions: tuple[CivitaiVersion, ...]


class Civitai:
    """Asks `sites` in turn, until one of them knows. Raises as Web does.

    `nsfw`: whether models that the site marks as NSFW are wanted.
    """

    def __init__(
        self,
        web: Web,
        sites: tuple[str, ...] = SITES,
        *,
        nsfw: Callable[[], bool] = lambda: True,
    ):
        self._nsfw = nsfw
        self._web = web
        self._sites = sites

    @property
    def nsfw(self) -> bool:
        return self._nsfw()

    @property
    def has_token(self) -> bool:
        return self._web.has_token

    def model(self, model_id: int, deadline: float) -> CivitaiModel:
        """Raises DownloadRefused for an id that nobody has."""
        return _model(self._ask(f"models/{model_id}", _Model, deadline))

    def version(self, version_id: int, deadline: float) -> CivitaiVersion:
        """Raises DownloadRefused for an id that nobody has."""
        version = self._ask(f"model-versions/{version_id}", _LoneVersion, deadline)
        return _version(version, version.model, version.modelId)

    def search(
        self, name: str, types: tuple[str, ...], deadline: float
    ) -> tuple[CivitaiModel, ...]:
        """Models of these types that the site finds for the words of a name, in its order."""
        query = [("types", kind) for kind in types]
        query += [("query", name), ("limit", str(_SEARCH_LIMIT)), ("nsfw", str(self.nsfw).lower())]
        found = self._ask(f"models?{urlencode(query)}", _Found, deadline)
        return tuple(_model(model) for model in found.items if model.type in types)

    def _ask(self, path: str, shape: type[Read], deadline: float) -> Read:
        def ask(site: str) -> Read:
            answer = self._web.read(f"{site}/api/v1/{path}", deadline, _MOST_BYTES)
            return _read(shape, answer, site)

        return first_that_knows(self._sites, ask)


class Hordeling:
    """The horde's own copies of textual inversions, in safetensors where CivitAI has a pickle."""

    def __init__(self, web: Web, site: str = HORDELING):
        self._web = web
        self._site = site

    def embedding(self, model_id: int, most_bytes: int, deadline: float) -> CivitaiFile:
        """The file of CivitAI's model; its size is not told. Raises as Web does."""
        url = f"{self._site}/api/v1/embedding/{model_id}"
        copy = _read(_Embedding, self._web.read(url, deadline, _MOST_BYTES), self._site)
        return CivitaiFile(copy.url, _sha256(copy.sha256), most_bytes)


Answered = TypeVar("Answered")


def first_that_knows(sites: tuple[str, ...], ask: Callable[[str], Answered]) -> Answered:
    """The first answer; the last refusal where there is none."""
    for site in sites[:-1]:
        try:
            return ask(site)
        except DownloadRefused:
            continue
    return ask(sites[-1])


# ---- what the site sends ---------------------------------------------------------------------


# An id of 0 is what the owner's own files have (worker.loras.files).
_Id = Annotated[int, Field(gt=0, lt=10**12)]


class _Part(BaseModel):
    """Fields that we do not know are ignored; null is as good as absent."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class _Hashes(_Part):
    SHA256: str | None = None


class _Metadata(_Part):
    format: str | None = None


class _File(_Part):
    name: Name
    sizeKB: float | None = Field(default=None, ge=0, lt=1e12)
    type: Label = "Model"
    primary: bool | None = None
    metadata: _Metadata | None = None
    hashes: _Hashes | None = None
    downloadUrl: Link | None = None


class _ModelHead(_Part):
    name: Name
    type: Label
    nsfw: bool = False


class _Version(_Part):
    id: _Id
    name: Name = ""
    baseModel: Label | None = None
    trainedWords: tuple[str, ...] | None = None
    availability: str | None = None
    usageControl: str | None = None
    model: _ModelHead = Field(default=_ModelHead(name="", type=""))
    files: tuple[_File, ...] = ()


class _LoneVersion(_Version):
    modelId: _Id


class _Model(_ModelHead):
    id: _Id
    modelVersions: tuple[_Version, ...] = ()


class _Found(_Part):
    items: tuple[_Model, ...]


class _Embedding(_Part):
    url: Link
    sha256: str


def _read(shape: type[Read], answer: bytes, site: str) -> Read:
    try:
        return read_json(TypeAdapter(shape), answer)
    except ValueError as error:
        raise DownloadFailed(f"{site}: not an answer of CivitAI ({reason_of(error)})") from error


def _model(model: _Model) -> CivitaiModel:
    versions = tuple(_version(version, model, model.id) for version in model.modelVersions)
    return CivitaiModel(model.name, versions)


def _version(version: _Version, model: _ModelHead, model_id: int) -> CivitaiVersion:
    return CivitaiVersion(
        model_id=model_id,
        version_id=version.id,
        model_name=model.name,
        version_name=version.name,
        type=model.type,
        base_model=version.baseModel or "",
        triggers=triggers(version.trainedWords or ()),
        is_nsfw=model.nsfw,
        is_downloadable=version.availability != "EarlyAccess"
        and version.usageControl in (None, "Download"),
        file=_main_file(version.files),
    )


def triggers(words: tuple[str, ...]) -> tuple[str, ...]:
    """Trained words fit for a prompt: one line each, without another program's LoRA tags."""
    plain = (_LORA_TAG.sub(r"\1", word[:_LONGEST_TRIGGER]) for word in words[:_MOST_TRIGGERS])
    tidy = (" ".join(word.split()).strip(" ,") for word in plain)
    return tuple(dict.fromkeys(word for word in tidy if word and word.isprintable()))


def _main_file(files: tuple[_File, ...]) -> CivitaiFile | None:
    """The primary file where it is safetensors, else another one that is."""
    ours = [file for file in files if _is_safe(file) and file.type in _MODEL_FILES]
    for file in sorted(ours, key=lambda file: not file.primary):
        if file.downloadUrl and file.sizeKB:
            sha256 = _sha256((file.hashes and file.hashes.SHA256) or "")
            return CivitaiFile(file.downloadUrl, sha256, round(file.sizeKB * 1024))
    return None


def _sha256(text: str) -> str:
    """In lower case; "" for what is none."""
    return text.lower() if _SHA256.fullmatch(text.lower()) else ""


def _is_safe(file: _File) -> bool:
    said = file.metadata.format if file.metadata else None
    return file.name.lower().endswith(SUFFIX) and said in (None, "SafeTensor")
