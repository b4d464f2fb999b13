"""The file that a job names by an id or a name of CivitAI: from the disk, or downloaded in time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hordelib.errors import (
    BaselineMismatch,
    DiskTrouble,
    DownloadFailed,
    DownloadRefused,
    ModelBroken,
)
from hordelib.files.safetensors_header import ADAPTER_BYTES, read_header
from worker.loras.base_models import may_fit
from worker.loras.civitai import Civitai, CivitaiFile, CivitaiVersion, Hordeling
from worker.loras.files import (
    Choice,
    LoraFile,
    LoraRecord,
    close_to,
    closest,
    first_of,
    named,
    of_model,
    of_version,
    owners,
)
from worker.loras.store import LoraStore
from worker.net.downloads import Download, Downloader
from worker.net.refusal_memo import DownloadMemo

_DAY_SECONDS = 86400.0
_MIB = 1 << 20
_ROUNDING_BYTES = 1024  # by which the site's sizes may be wrong
_MOST_ID_DIGITS = 12


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of file that jobs name. `types` are CivitAI's; `stem` calls the file on disk."""

    name: str
    types: tuple[str, ...]
    most_bytes: int
    stem: Callable[[CivitaiVersion], str]


LORA = Kind(
    "LoRA",
    ("LORA", "LoCon", "DoRA"),
    1 << 30,
    lambda version: f"{version.model_id}-{version.version_id}",
)
# Clients write `embedding:<model id>` into prompts, so that has to be the file's name.
TI = Kind(
    "textual inversion", ("TextualInversion",), 20 << 20, lambda version: f"{version.model_id}"
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a job asks for, for a model of the horde's `baseline`."""

    name: str  # or an id
    baseline: str
    is_version: bool = False

    @property
    def id(self) -> int:
        """The id that the name is, 0 where it is none."""
        is_id = self.name.isascii() and self.name.isdecimal() and len(self.name) <= _MOST_ID_DIGITS
        return int(self.name) if is_id else 0

    def fits(self, base_model: str) -> bool:
        return may_fit(base_model, self.baseline)


class LoraFinder:
    """Finds files of one kind, and downloads those that are missing. Any thread may use it.

    `copies` has the files that are pickles at CivitAI.
    """

    def __init__(
        self,
        kind: Kind,
        store: LoraStore,
        civitai: Civitai,
        downloader: Downloader,
        memo: DownloadMemo,
        copies: Hordeling | None = None,
    ):
        self._kind = kind
        self._store = store
        self._civitai = civitai
        self._downloader = downloader
        self._memo = memo
        self._copies = copies

    @property
    def kind_name(self) -> str:
        """For people."""
        return self._kind.name

    @property
    def store(self) -> LoraStore:
        return self._store

    def find(self, wanted: Wanted, *, job_id: str, deadline: float) -> LoraFile:
        """The file, held for the job until `release`; `deadline` is of elapsed_seconds().

        A model's id or name means its newest version that fits, as CivitAI said within a day.
        Where it can't be asked, or knows nothing, a file on disk serves that is called so, or
        nearly so. Raises BaselineMismatch for a file of another family, and DownloadFailed with
        the reason for one that can't be had.
        """
        try:
            here = self._store.find(self._known(wanted), job_id)
            if here is not None:
                return _fitting(here, wanted, self._kind)
            return self._fetched_or_kept(wanted, job_id, deadline)
        except OSError as error:
            raise DiskTrouble(f"{self._kind.name} {wanted.name!r}: {error}") from error

    def release(self, job_id: str) -> None:
        """The job is over: its files may go when room is needed."""
        self._store.release(job_id)

    def _known(self, wanted: Wanted) -> Choice:
        """The file that is meant beyond doubt."""
        if wanted.is_version:
            return of_version(wanted.id)
        return first_of(owners(wanted.name), of_version(self._memo.version(self._key(wanted))))

    def _fetched_or_kept(self, wanted: Wanted, job_id: str, deadline: float) -> LoraFile:
        try:
            return self._fetched(wanted, job_id, deadline)
        except DownloadFailed:
            kept = self._store.find(_substitute(wanted), job_id)
            if kept is None:
                raise
            return kept

    def _fetched(self, wanted: Wanted, job_id: str, deadline: float) -> LoraFile:
        key = self._key(wanted)
        self._memo.raise_if_refused(key)
        try:
            version = self._version(wanted, deadline)
            file = self._download(version, job_id, deadline)
        except DownloadRefused as refused:
            self._memo.remember_refusal(key, refused)
            raise
        self._memo.remember_version(key, version.version_id, _DAY_SECONDS)
        return file

    def _key(self, wanted: Wanted) -> str:
        """What an answer depends on."""
        kind = f"{self._kind.name} version" if wanted.is_version else self._kind.name
        asker = "a token" if self._civitai.has_token else "no token"
        taste = "nsfw" if self._civitai.nsfw else "sfw"
        return f"{kind} {wanted.name.casefold()!r} for {wanted.baseline}, {asker}, {taste}"

    def _version(self, wanted: Wanted, deadline: float) -> CivitaiVersion:
        if wanted.is_version:
            versions = (self._civitai.version(wanted.id, deadline),)
        elif wanted.id:
            versions = self._civitai.model(wanted.id, deadline).versions
        else:
            versions = self._named(wanted.name, deadline)
        return self._best(versions, wanted)

    def _named(self, name: str, deadline: float) -> tuple[CivitaiVersion, ...]:
        """The versions of every model that has the one name that is meant."""
        models = self._civitai.search(name, self._kind.types, deadline)
        meant = closest(name, (model.name for model in models))
        if meant is None:
            raise DownloadRefused(f"CivitAI finds none that is called {name!r}", _DAY_SECONDS)
        same = [model for model in models if model.name.casefold() == meant.casefold()]
        return tuple(version for model in same for version in model.versions)

    def _best(self, versions: tuple[CivitaiVersion, ...], wanted: Wanted) -> CivitaiVersion:
        """The newest that fits the job's model. `versions` is newest first."""
        usable = [version for version in versions if not self._objection(version)]
        fitting = [version for version in usable if wanted.fits(version.base_model)]
        if fitting:
            return fitting[0]
        if usable:
            raise _mismatch(self._kind, wanted, usable[0].base_model)
        reason = self._objection(versions[0]) if versions else "has no version"
        raise DownloadRefused(f"{self._kind.name} {wanted.name!r} {reason}", _DAY_SECONDS)

    def _objection(self, version: CivitaiVersion) -> str:
        """Why a version is not to be had; "" where it is."""
        file = version.file
        reasons = (
            (version.type not in self._kind.types, f"is a {version.type}"),
            (version.is_nsfw and not self._civitai.nsfw, "is NSFW, and this worker is not"),
            (not version.is_downloadable, "is in early access, or not for download"),
            (file is None and self._copies is None, "has no safetensors file"),
            (file is not None and not file.sha256, "has no checksum yet"),
            (
                file is not None and file.size_bytes > self._kind.most_bytes,
                f"is larger than {self._kind.most_bytes // _MIB} MiB",
            ),
        )
        return next((reason for is_so, reason in reasons if is_so), "")

    def _download(self, version: CivitaiVersion, job_id: str, deadline: float) -> LoraFile:
        stem = self._kind.stem(version)
        this = of_version(version.version_id)
        with self._downloader.turn(self._store.path_of(stem), deadline):
            here = self._store.find(this, job_id)
            if here is not None:
                return here
            file = version.file or self._copy(version, deadline)
            with self._store.arrival(stem, _record(version, file), job_id) as target:
                self._downloader.fetch(
                    Download(
                        url=file.url,
                        target=target,
                        sha256=file.sha256,
                        most_bytes=file.size_bytes + _ROUNDING_BYTES,
                    ),
                    deadline,
                )
                _verify(target)
        found = self._store.find(this, job_id)
        if found is None:
            raise DownloadFailed(f"{target}: vanished")
        return found

    def _copy(self, version: CivitaiVersion, deadline: float) -> CivitaiFile:
        if self._copies is None:
            raise DownloadRefused("has no safetensors file", _DAY_SECONDS)
        return self._copies.embedding(version.model_id, self._kind.most_bytes, deadline)


def _substitute(wanted: Wanted) -> Choice:
    """What serves when CivitAI does not: never another version than a job asks for."""
    if wanted.is_version:
        return of_version(wanted.id)
    if wanted.id:
        return of_model(wanted.id, wanted.fits)
    return first_of(named(wanted.name, wanted.fits), close_to(wanted.name, wanted.fits))


def _fitting(file: LoraFile, wanted: Wanted, kind: Kind) -> LoraFile:
    if not wanted.fits(file.about.base_model):
        raise _mismatch(kind, wanted, file.about.base_model)
    return file


def _mismatch(kind: Kind, wanted: Wanted, base_model: str) -> BaselineMismatch:
    return BaselineMismatch(
        f"{kind.name} {wanted.name!r} is for {base_model!r}, not for {wanted.baseline}"
    )


def _record(version: CivitaiVersion, file: CivitaiFile) -> LoraRecord:
    return LoraRecord(
        name=version.model_name,
        model_id=version.model_id,
        version_id=version.version_id,
        version_name=version.version_name,
        base_model=version.base_model,
        triggers=version.triggers,
        sha256=file.sha256,
        size_bytes=file.size_bytes,
    )


def _verify(path: Path) -> None:
    """Raises DownloadRefused for what is called safetensors and is none."""
    try:
        read_header(path, ADAPTER_BYTES)
    except ModelBroken as error:
        raise DownloadRefused(str(error), _DAY_SECONDS) from error
