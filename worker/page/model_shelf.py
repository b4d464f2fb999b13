"""The models for the page: what is chosen and on disk, and adding and removing."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hordelib.errors import HordelibError
from worker.config.config import load_config
from worker.config.editing import change_settings, try_change
from worker.errors import DocumentMissing, UnknownModel, WorkerError
from worker.models.fetching import ModelSupply, arrived_bytes
from worker.models.inventory import Inventory, ModelsFolder, idle, take_inventory
from worker.models.on_disk import DISK_FLOOR_BYTES, Stock, make_plan
from worker.models.removal import remove_files
from worker.models.sites import read_uses

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0
MOST_TOLD = 20  # downloads that are over


@dataclass(slots=True)
class Fetch:
    """A download that the page began. `problem`: how it failed."""

    stock: Stock
    is_over: bool = False
    problem: str = ""

    def told(self) -> dict[str, Any]:
        return {
            "name": self.stock.name,
            "arrived_bytes": arrived_bytes([self.stock]),
            "size_bytes": self.stock.entry.size_bytes,
            "is_over": self.is_over,
            "problem": self.problem,
        }


@dataclass
class ModelShelf:
    """Any thread may use it. Methods raise WorkerError with lines for the owner, and OSError."""

    config_file: Path
    home: Path
    _fetches: dict[str, Fetch] = field(default_factory=dict[str, Fetch])
    _changing: threading.Lock = field(default_factory=threading.Lock)

    def shown(self, served: tuple[str, ...]) -> dict[str, Any]:
        """What is chosen, what lies on disk, and what the horde's list has beside that."""
        folder = self._folder()
        inventory = take_inventory(folder)
        uses = _uses(folder)
        stocks = {stock.name: stock for stock in idle(folder, inventory.reference, ())}
        stocks = dict(inventory.stocks) | stocks
        rows = [
            {
                "name": entry.name,
                "family": entry.family,
                "size_bytes": entry.size_bytes,
                "there_bytes": stocks[entry.name].there_bytes if entry.name in stocks else 0,
                "state": stocks[entry.name].state.value if entry.name in stocks else "missing",
                "is_chosen": entry.name in inventory.names,
                "is_served": entry.name in served,
                "pictures": uses.get(entry.name),
            }
            for entry in inventory.reference.models
        ]
        listed = {row["name"] for row in rows}
        others = [name for name in inventory.names if name not in listed]
        return {
            "models": [*(_unlisted(name, is_served=name in served) for name in others), *rows],
            "free_bytes": folder.free_bytes,
            "kept_bytes": DISK_FLOOR_BYTES,
            "lora_bytes": _bytes_in(folder.path / "lora"),
            "lora_most_bytes": folder.config.max_lora_cache_size * 10**9,
            "problems": [*inventory.notes, *inventory.problems],
        }

    def fetches(self) -> list[dict[str, Any]]:
        return [fetch.told() for fetch in list(self._fetches.values())]

    def plan(self, name: str) -> dict[str, Any]:
        """What adding the model would do to the disk; `problem` says why it can't be added."""
        folder = self._folder()
        inventory = take_inventory(folder)
        stock = _stock(folder, inventory, name)
        plan = make_plan(
            [stock], idle(folder, inventory.reference, inventory.names), folder.free_bytes
        )
        problem = plan.refused[0].reason if plan.refused else ""
        return {
            "name": name,
            "to_come_bytes": stock.to_come_bytes,
            "free_bytes": plan.free_bytes,
            "kept_bytes": DISK_FLOOR_BYTES,
            "problem": problem or _in_hand(inventory, name),
        }

    def add(self, name: str) -> None:
        """Download it beside what is served, then put it into models_to_load."""
        with self._changing:
            going = self._fetches.get(name)
            if going is not None and not going.is_over:
                raise UnknownModel(f"{name} is being downloaded already")
            if problem := self.plan(name)["problem"]:
                raise UnknownModel(problem)
            folder = self._folder()
            fetch = Fetch(_stock(folder, take_inventory(folder), name))
            over = [each for each, fetch in self._fetches.items() if fetch.is_over]
            for each in over[: max(len(over) - MOST_TOLD, 0)]:
                del self._fetches[each]
            self._fetches[name] = fetch
        log.info("page: downloading %s", name)
        work = threading.Thread(
            target=self._fetch, args=(folder, fetch), name="page download", daemon=True
        )
        work.start()

    def _fetch(self, folder: ModelsFolder, fetch: Fetch) -> None:
        try:
            supply = ModelSupply([fetch.stock], folder.fetcher())
            told = [each for each in supply.outcomes(POLL_SECONDS) if each is not None]
            fetch.problem = told[0].problem
            if not fetch.problem:
                self._choose(fetch.stock.name)
        except (WorkerError, HordelibError, OSError) as error:
            fetch.problem = str(error)
        finally:
            fetch.is_over = True
        if fetch.problem:
            log.warning("page: %s", fetch.problem)
        else:
            log.info("page: %s is here; the next start serves it", fetch.stock.name)

    def _choose(self, name: str) -> None:
        with self._changing:
            chosen = load_config(self.config_file).models_to_load
            if name not in chosen:
                names = (*chosen, name)
                change_settings(self.config_file, {"models_to_load": names}).unlink()

    def remove(self, name: str) -> dict[str, Any]:
        """Take it out of models_to_load, and delete its files that no other model needs."""
        with self._changing:
            folder = self._folder()
            if name in folder.customs:
                raise UnknownModel(f"{name} is yours (custom_models): its file is not removed")
            inventory = take_inventory(folder)
            stock = _stock(folder, inventory, name)
            chosen = folder.config.models_to_load
            left = tuple(each for each in chosen if each != name)
            if name in inventory.names and left == chosen:
                told = f"{name} is chosen by a group of models_to_load or by dynamic_models"
                raise UnknownModel(f"{told}: put it into models_to_skip first")
            if left != chosen:
                try_change(self.config_file, {"models_to_load": left})
                change_settings(self.config_file, {"models_to_load": left}).unlink()
            removed = remove_files(folder, inventory.reference, [stock])
        log.info("page: removed %s", name)
        return {"freed_bytes": removed.freed_bytes, "kept": list(removed.kept)}

    def _folder(self) -> ModelsFolder:
        return ModelsFolder.of(load_config(self.config_file), self.home)


def _stock(folder: ModelsFolder, inventory: Inventory, name: str) -> Stock:
    entry = inventory.reference.entries.get(name)
    if entry is None:
        raise UnknownModel(f"{name[:100]!r} is not in the horde's list of models")
    return folder.look(entry)


def _in_hand(inventory: Inventory, name: str) -> str:
    if name not in inventory.names:
        return ""
    return f"{name} is chosen already; the worker downloads what is missing of it by itself"


def _uses(folder: ModelsFolder) -> dict[str, int]:
    """Pictures of the last month, by model; none where the horde does not say."""
    try:
        return dict(read_uses(folder.documents, folder.config.horde_url))
    except DocumentMissing:
        return {}


def _unlisted(name: str, *, is_served: bool) -> dict[str, Any]:
    return {
        "name": name,
        "family": "not in the horde's list",
        "size_bytes": 0,
        "there_bytes": 0,
        "state": "yours",
        "is_chosen": True,
        "is_served": is_served,
        "pictures": None,
    }


def _bytes_in(folder: Path) -> int:
    files = (path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else ()
    return sum(path.stat().st_size for path in files)
