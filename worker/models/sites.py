"""Where the horde publishes what it knows of models: the reference, their use and their queues."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, TypeAdapter

from worker.errors import DocumentMissing
from worker.models.files.control_files import annotator_entries, control_net_entries
from worker.models.files.unlisted_weights import (
    question_entries,
    safety_entry,
    transparency_entries,
)
from worker.models.reference import (
    Kind,
    ReferenceEntry,
    ReferenceList,
    of_one_mind,
    read_list,
    read_pending,
    with_pending,
)
from worker.net.cached_documents import Documents, Source
from worker.net.untrusted import Count, Name, Number, read_json

# The new format first: the old one lacks the newest families.
SITES = (
    "https://models.aihorde.net/api/model_references/v2",
    "https://raw.githubusercontent.com/Haidra-Org/AI-Horde-image-model-reference/main",
)
NEW_FORMAT = "/v2"  # how the address of a site ends whose lists are called by the new names
_ANYBODY = MappingProxyType({"apikey": "0000000000"})  # who may read what awaits approval
_HOUR, _DAY, _MINUTE = 3600.0, 86400.0, 60.0
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

# What each list is called: in the new format, and in the old one (where it is a file).
_LISTS: Mapping[Kind, tuple[str, str]] = MappingProxyType(
    {
        Kind.model: ("image_generation", "stable_diffusion.json"),
        Kind.control_net: ("controlnet", "controlnet.json"),
        Kind.upscaler: ("esrgan", "esrgan.json"),
        Kind.face_fixer: ("gfpgan", "gfpgan.json"),
        Kind.codeformer: ("codeformer", "codeformer.json"),
    }
)


@dataclass(frozen=True, slots=True)
class Reference:
    """Every row that was had, by its name. `notes` are lines for the owner.

    `missing` has those of the notes that tell of a list which could not be had at all.
    """

    entries: Mapping[str, ReferenceEntry] = field(default_factory=dict[str, ReferenceEntry])
    notes: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def models(self) -> tuple[ReferenceEntry, ...]:
        return tuple(row for row in self.entries.values() if row.kind is Kind.model)


def sites_of(address: str | None, horde_url: str) -> tuple[str, ...]:
    """Where the reference is asked for: where the owner says ("none": nowhere).

    Else at the horde's own sites; a horde on this machine has models of its own.
    """
    if address is not None:
        return () if address == "none" else (address,)
    return () if urlsplit(horde_url).hostname in _LOOPBACK else SITES


def read_reference(
    documents: Documents, sites: tuple[str, ...], kinds: Iterable[Kind] = tuple(_LISTS)
) -> Reference:
    """The lists of these kinds, and the files of control types that no list has.

    A list that can't be had is a note.
    """
    if not sites:
        return Reference(_by_name(_others()))
    entries: list[ReferenceEntry] = []
    notes: list[str] = []
    missing: list[str] = []
    for kind in kinds:
        try:
            had = documents.read(_list_source(kind, sites))
        except DocumentMissing as error:
            missing.append(f"model reference: {error}")
            continue
        read = with_pending(had.value, _pending(documents, kind, sites))
        entries += read.entries
        notes += [*read.problems, *([f"model reference: {had.note}"] if had.note else [])]
    agreed = of_one_mind(entries)
    by_name = _by_name((*_others(), *reversed(agreed.entries)))  # models come first
    return Reference(by_name, (*missing, *notes, *agreed.problems), tuple(missing))


def _others() -> tuple[ReferenceEntry, ...]:
    """Files that no list of the horde's has."""
    others = (*annotator_entries(), *control_net_entries(), *transparency_entries())
    return *others, *question_entries(), safety_entry()


def _by_name(entries: Iterable[ReferenceEntry]) -> dict[str, ReferenceEntry]:
    return dict(reversed([(entry.name, entry) for entry in entries]))


def _list_source(kind: Kind, sites: tuple[str, ...]) -> Source[ReferenceList]:
    new, old = _LISTS[kind]
    urls = tuple(f"{site}/{new if site.endswith(NEW_FORMAT) else old}" for site in sites)
    return Source(new, urls, lambda text: read_list(text, kind), _HOUR)


def _pending(documents: Documents, kind: Kind, sites: tuple[str, ...]) -> ReferenceList:
    """What awaits approval, where a site has such a list: not all do, and none has to."""
    name = _LISTS[kind][0]
    urls = tuple(f"{site}/{name}/pending" for site in sites if site.endswith(NEW_FORMAT))
    if not urls:
        return ReferenceList()
    parse = partial(read_pending, kind=kind)
    try:
        source = Source(f"{name}-pending", urls, parse, _HOUR, _ANYBODY)
        return documents.read(source).value
    except DocumentMissing:
        return ReferenceList()


# ---- what is asked for -----------------------------------------------------------------------


class _Uses(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)
    month: dict[Name, Count]


class ModelQueue(BaseModel):
    """What waits for a model at the horde."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    name: Name
    count: Count = 0  # threads that serve it
    queued: Number = 0.0  # megapixelsteps, or pixelsteps: only their order counts
    jobs: Number = 0.0  # images that wait
    eta: Number = 0.0  # seconds until all that waits is done, as the horde estimates

    @property
    def share(self) -> float:
        """What waits, shared among those who serve the model and one more."""
        return self.queued / (max(self.count, 0) + 1)


_USES, _QUEUES = TypeAdapter(_Uses), TypeAdapter(list[ModelQueue])


def _month(text: str) -> Mapping[str, int]:
    return read_json(_USES, text.encode()).month


def _queues(text: str) -> list[ModelQueue]:
    return read_json(_QUEUES, text.encode())


def read_uses(documents: Documents, horde_url: str) -> Mapping[str, int]:
    """How many pictures each model made in the last month. Raises DocumentMissing."""
    url = f"{horde_url}/api/v2/stats/img/models?model_state=known"
    try:
        return documents.read(Source("uses", (url,), _month, _DAY)).value
    except DocumentMissing as error:
        if "HTTP 404" in str(error):
            raise DocumentMissing("this horde has no usage statistics") from error
        raise


def read_queues(documents: Documents, horde_url: str) -> Mapping[str, ModelQueue]:
    """What waits for each model. Raises DocumentMissing, also where there is only an old copy:
    queues change by the minute.
    """
    url = f"{horde_url}/api/v2/status/models?type=image"
    had = documents.read(Source("queues", (url,), _queues, _MINUTE))
    if had.note:
        raise DocumentMissing(had.note)
    return {row.name: row for row in had.value}
