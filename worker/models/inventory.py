"""What bridgeData.yaml asks of the models folder: names, what is there of each, and what to do."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from shlex import quote

from hordelib.comfyui import versions
from hordelib.comfyui.device import default_folder
from hordelib.errors import ModelBroken, ModelMissing
from hordelib.files.names import ModelStore
from hordelib.job.families import FAMILIES
from worker.config.keys import BridgeConfig
from worker.config.values import CLIENT_AGENT, is_word
from worker.errors import ConfigError, DocumentMissing
from worker.loras.civitai import SITES as CIVITAI_SITES
from worker.models.files.checksums import VerifiedFiles
from worker.models.files.fetching import FileFetcher, other_file
from worker.models.files.on_disk import Plan, State, Stock, look, make_plan
from worker.models.reference import Kind, ReferenceEntry
from worker.models.selection import Candidates, choose, dynamic_choice
from worker.models.sites import Reference, read_queues, read_reference, read_uses, sites_of
from worker.net.cached_documents import Documents
from worker.net.fetch import Web
from worker.net.refusal_memo import DownloadMemo

DOCUMENTS = "reference"  # the folder of the lists' copies, in the models folder
REFUSED = "refused.json"


@dataclass(frozen=True, slots=True)
class ModelsFolder:
    """The models folder of a configuration, and what is known of the files in it."""

    config: BridgeConfig
    home: Path
    path: Path
    documents: Documents
    verified: VerifiedFiles

    @classmethod
    def of(cls, config: BridgeConfig, home: Path) -> ModelsFolder:
        insist_on_cache_home(config, home)
        path = config.models_folder(home)
        documents = Documents(path / DOCUMENTS, CLIENT_AGENT)
        return cls(config, home, path, documents, VerifiedFiles(path))

    @property
    def customs(self) -> dict[str, Path]:
        return {model.name: self.home / model.filepath for model in self.config.custom_models}

    @property
    def free_bytes(self) -> int:
        """Of the disk that has the folder, or will have it."""
        there = next(folder for folder in (self.path, *self.path.parents) if folder.is_dir())
        return shutil.disk_usage(there).free

    def reference(self, kinds: Iterable[Kind] | None = None) -> Reference:
        """The reference's lists of these kinds, else all of them."""
        sites = sites_of(self.config.model_reference, self.config.horde_url)
        return read_reference(self.documents, sites, *(() if kinds is None else (tuple(kinds),)))

    def look(self, entry: ReferenceEntry) -> Stock:
        """What is there of an entry, also where its one file is called as the model is."""
        stock = look(self.path, entry, self.verified)
        if entry.kind is not Kind.model or len(entry.files) > 1 or stock.state is not State.missing:
            return stock
        try:
            own = ModelStore(self.path).checkpoint(entry.name)
        except ModelMissing:
            return stock
        return look(self.path, entry, self.verified, own)

    def fetcher(self) -> FileFetcher:
        token = self.config.civitai_api_token
        tokens = {site: token.get_secret_value() for site in CIVITAI_SITES} if token else {}
        memo = DownloadMemo(self.path / REFUSED)
        return FileFetcher(Web(CLIENT_AGENT, tokens), memo, self.verified)


@dataclass(frozen=True, slots=True)
class Inventory:
    """What is to be offered, and how far it is.

    `names` are all that are chosen; `stocks` what is there of those that the reference lists, but
    for custom models, which are their owner's word. `problems` are lines for the owner, and
    `missing` those of its notes that tell of a list of the horde's which could not be had.
    """

    folder: ModelsFolder
    reference: Reference
    names: tuple[str, ...]
    stocks: Mapping[str, Stock]
    plan: Plan
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    dynamic: tuple[str, ...]  # those of `names` that the horde's queues chose
    missing: tuple[str, ...] = ()

    @property
    def is_unknown(self) -> bool:
        """Whether nobody knows what there is to choose from: the list of models can't be had."""
        return bool(self.missing) and not self.reference.models

    @property
    def files(self) -> Mapping[str, Path]:
        """The main file of each name that has one elsewhere than where its name says."""
        listed = {name: stock.files[0].path for name, stock in self.stocks.items()}
        return listed | self.folder.customs

    @property
    def coming(self) -> tuple[Stock, ...]:
        """Those to be verified or downloaded, in turns: neither waits for all of the other."""
        unread = [stock for stock in self.stocks.values() if stock.state is State.unread]
        both = zip_longest(unread, self.plan.fetched)
        return tuple(stock for pair in both for stock in pair if stock is not None)

    def insist_on_verified(self, name: str) -> None:
        """Raises ModelMissing or ModelBroken for a model whose files are not all as listed."""
        stock = self.stocks.get(name)
        if stock is None or stock.state in (State.verified, State.unlisted):
            return
        if stock.state is State.other:
            other = next(file for file in stock.files if file.state is State.other)
            raise ModelBroken(other_file(stock, other))
        refused = next((each.reason for each in self.plan.refused if each.stock is stock), "")
        raise ModelMissing(refused or f"{name}: is not downloaded and verified yet")


def insist_on_cache_home(config: BridgeConfig, home: Path) -> None:
    """Raises ConfigError where the owner names a folder that is not there: a disk that is not
    mounted, or a typing error. The folder `models` in it is made."""
    folder = config.models_folder(home).parent
    if config.cache_home != Path(".") and not folder.is_dir():
        told = f"cache_home: there is no folder {folder}; make it (mkdir -p {quote(str(folder))})"
        raise ConfigError((f"{told}, or correct the path",))


def take_inventory(folder: ModelsFolder) -> Inventory:
    """What the configuration comes to now; asks the horde's sites where that is due."""
    config = folder.config
    reference = folder.reference([Kind.model])
    uses, uses_notes = _uses(folder)
    candidates = Candidates(
        reference.models, uses, _own(folder, reference), config.load_large_models
    )
    wanted = (*config.models_to_load, *folder.customs)
    choice = choose(wanted, config.models_to_skip, candidates)
    dynamic, dynamic_notes = _dynamic(folder, reference, choice.names)
    newer = too_new(folder, reference)
    names = (*(name for name in choice.names if name not in newer), *dynamic)
    listed = [reference.entries[name] for name in names if name in reference.entries]
    stocks = {row.name: folder.look(row) for row in listed if row.name not in folder.customs}
    return Inventory(
        folder,
        reference,
        names,
        stocks,
        make_plan(list(stocks.values()), idle(folder, reference, names), folder.free_bytes),
        (*choice.problems, *(newer[name] for name in choice.names if name in newer)),
        (*reference.notes, *uses_notes, *dynamic_notes),
        dynamic,
        (*reference.missing, *uses_notes, *dynamic_notes),
    )


def dynamic_names(
    folder: ModelsFolder, reference: Reference, fixed: Sequence[str], held: Sequence[str]
) -> tuple[str, ...]:
    """What the horde's queues choose beside the `fixed` names; those `held` have an advantage.

    A model that is not on disk is chosen only while fewer than max_models_to_download are, and
    where it fits. Raises DocumentMissing.
    """
    config = folder.config
    queues = read_queues(folder.documents, config.horde_url)
    shares = {name: queue.share for name, queue in queues.items()}
    candidates = Candidates(reference.models, _uses(folder)[0], with_large=config.load_large_models)
    names = choose(("all",), config.models_to_skip, candidates).names
    stocks = [folder.look(reference.entries[name]) for name in names if name not in fixed]
    there = sum(not folder.look(row).is_wanting for row in reference.models)
    may_download = there < config.max_models_to_download
    fitting = {stock.name for stock in stocks if may_download and _fits(stock, folder)}
    newer = too_new(folder, reference)
    may_serve = [s.name for s in stocks if s.name in fitting or not s.is_wanting]
    allowed = [name for name in may_serve if name not in newer]
    return dynamic_choice(shares, held, config.number_of_dynamic_models, allowed)


def comfyui_folder(config: BridgeConfig, home: Path) -> Path:
    """Where the engine's ComfyUI lies."""
    return home / config.comfyui_path if config.comfyui_path else default_folder()


def too_new(folder: ModelsFolder, reference: Reference) -> dict[str, str]:
    """Why the ComfyUI here can't run a listed model, for each of these: none is downloaded.

    A custom model's family is told by its file.
    """
    comfyui = comfyui_folder(folder.config, folder.home)
    reasons = {
        row.name: versions.lack(comfyui, row.name, FAMILIES[row.baseline])
        for row in reference.models
        if row.baseline in FAMILIES and row.name not in folder.customs
    }
    return {name: why for name, why in reasons.items() if why}


def _fits(stock: Stock, folder: ModelsFolder) -> bool:
    return bool(make_plan([stock], (), folder.free_bytes).fetched)


def _dynamic(
    folder: ModelsFolder, reference: Reference, fixed: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if not folder.config.serves_dynamically:
        return (), ()
    try:
        return dynamic_names(folder, reference, fixed, ()), ()
    except DocumentMissing as error:
        return (), (f"dynamic_models: {error}",)


def idle(folder: ModelsFolder, reference: Reference, names: Iterable[str]) -> list[Stock]:
    """The reference's models on disk that are not among these names."""
    others = [row for row in reference.models if row.name not in set(names)]
    return [stock for row in others if (stock := folder.look(row)).there_bytes]


def _uses(folder: ModelsFolder) -> tuple[Mapping[str, int] | None, tuple[str, ...]]:
    """How often models are used, asked for only where a word depends on it."""
    words = (*folder.config.models_to_load, *folder.config.models_to_skip)
    if not any(is_word(word) and not word.lower().startswith("all") for word in words):
        return None, ()
    try:
        return read_uses(folder.documents, folder.config.horde_url), ()
    except DocumentMissing as error:
        why = str(error).removeprefix("uses: ")
        return None, (f"how often models are used is not known: {why}",)


def _own(folder: ModelsFolder, reference: Reference) -> frozenset[str]:
    """Names with a file that no reference lists; every name, where there is no reference."""
    names = [name for name in folder.config.models_to_load if not is_word(name)]
    store = ModelStore(folder.path)
    found = names if not reference.models else [name for name in names if _has(store, name)]
    return frozenset((*found, *folder.customs))


def _has(store: ModelStore, name: str) -> bool:
    try:
        store.checkpoint(name)
    except ModelMissing:
        return False
    return True
