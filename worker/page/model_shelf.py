"""The models for the page: what is chosen and on disk, and adding and removing."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hordelib.errors import HordelibError
from hordelib.job.families import FAMILIES
from worker.config.config import load_config
from worker.config.editing import change_settings, try_change
from worker.errors import ConfigError, DocumentMissing, UnknownModel, WorkerError
from worker.models.files.expected_size import expected_misfit
from worker.models.files.on_disk import DISK_FLOOR_BYTES, Stock, make_plan
from worker.models.files.removal import remove_files
from worker.models.files.supply import arrived_bytes
from worker.models.inventory import Inventory, ModelsFolder, idle, take_inventory
from worker.models.keeper import ModelOffering
from worker.models.memory_fit import ComputeMemory, misfit
from worker.models.offer import compute_memory
from worker.models.opening import open_model
from worker.models.reference import ReferenceEntry
from worker.models.sites import read_uses

log = logging.getLogger(__name__)


@dataclass
class ModelShelf:
    """Any thread may use it. Methods raise WorkerError with lines for the owner, and OSError."""

    config_file: Path
    home: Path
    offering: ModelOffering
    _changing: threading.Lock = field(default_factory=threading.Lock)

    def shown(self, served: tuple[str, ...]) -> dict[str, Any]:
        """What is chosen, what lies on disk, and what the horde's list has beside that."""
        folder = self._folder()
        inventory = take_inventory(folder)
        uses, memory = _uses(folder), compute_memory(folder.config)
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
                **_fit(entry, stocks.get(entry.name), folder, memory),
            }
            for entry in inventory.reference.models
        ]
        listed = {row["name"] for row in rows}
        others = [name for name in inventory.names if name not in listed]
        return {
            "models": [*(_unlisted(name, is_served=name in served) for name in others), *rows],
            "free_bytes": folder.free_bytes,
            "kept_bytes": DISK_FLOOR_BYTES,
            "memory": _room(memory),
            "problems": [*inventory.notes, *inventory.problems],
        }

    def fetches(self) -> list[dict[str, Any]]:
        """The models on their way, and the last that were."""
        return [
            {
                "name": each.stock.name,
                "arrived_bytes": arrived_bytes([each.stock]),
                "size_bytes": each.stock.entry.size_bytes,
                "progress": "cancelled" if each.is_cancelled else each.progress.value,
                "is_wanted": each.is_wanted,
                "problem": each.problem,
            }
            for each in self.offering.supply.fetchings
        ]

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
        """Download it beside what is served; then it is offered, and stands in models_to_load."""
        with self._changing:
            if problem := self.plan(name)["problem"]:
                raise UnknownModel(problem)
            folder = self._folder()
            stock = _stock(folder, take_inventory(folder), name)
            if not self.offering.add(stock, self._arrived):
                raise UnknownModel(f"{name} is being downloaded already")
        log.info("page: downloading %s", name)

    def _arrived(self, name: str) -> None:
        """A model that was added here is offered."""
        try:
            self._choose(name)
        except (WorkerError, OSError) as error:
            log.warning(
                "page: %s serves, but could not be put into models_to_load: %s", name, error
            )

    def pause(self, name: str) -> None:
        """Stop its download where it is."""
        _insist(name, known=self.offering.supply.pause(name))

    def resume(self, name: str) -> None:
        _insist(name, known=self.offering.supply.resume(name))

    def cancel(self, name: str) -> None:
        """Delete what has come of it, and take it out of models_to_load."""
        with self._changing:
            _insist(name, known=self.offering.supply.cancel(name))
            chosen = load_config(self.config_file).models_to_load
            if name in chosen:
                left = {"models_to_load": tuple(each for each in chosen if each != name)}
                try:
                    try_change(self.config_file, left)
                except ConfigError as error:
                    told = (
                        f"the download of {name} is cancelled, and begins again at the next start"
                    )
                    raise UnknownModel(f"{told}: models_to_load names no other model") from error
                change_settings(self.config_file, left).unlink()
        log.info("page: cancelled the download of %s", name)

    def _choose(self, name: str) -> None:
        with self._changing:
            chosen = load_config(self.config_file).models_to_load
            if name not in chosen:
                names = (*chosen, name)
                change_settings(self.config_file, {"models_to_load": names}).unlink()

    def remove(self, name: str, in_hand: Collection[str] = ()) -> dict[str, Any]:
        """Take it out of models_to_load, and delete its files that no other model needs.

        Args:
            in_hand: models that jobs in hand need.
        """
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
            if name in in_hand:
                self.offering.rest(name)
                told = f"{name} has a job in hand, and is offered no more"
                raise UnknownModel(f"{told}: remove it once that job is done")
            if left != chosen:
                change_settings(self.config_file, {"models_to_load": left}).unlink()
            self.offering.withdraw(name, "its owner has removed it")
            self.offering.supply.cancel(name)
            removed = remove_files(folder, inventory.reference, [stock])
        log.info("page: removed %s", name)
        return {"freed_bytes": removed.freed_bytes, "kept": list(removed.kept)}

    def _folder(self) -> ModelsFolder:
        return ModelsFolder.of(load_config(self.config_file), self.home)


def _insist(name: str, *, known: bool) -> None:
    if not known:
        raise UnknownModel(f"{name[:100]!r} is not being downloaded")


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
        "fits": None,
        "fit": "not known",
    }


def _room(memory: ComputeMemory) -> str:
    gib = 1 << 30
    whose = "The card" if memory.setting == "vram_to_leave_free" else "This machine"
    total = f"{whose} has {memory.total_bytes / gib:.1f} GiB of memory"
    return f"{total}, of which {memory.setting} leaves models {memory.usable_bytes / gib:.1f} GiB."


def _fit(
    entry: ReferenceEntry, stock: Stock | None, folder: ModelsFolder, memory: ComputeMemory
) -> dict[str, Any]:
    """Whether it fits: by its files where they are here, else by what the list says."""
    if entry.baseline not in FAMILIES:
        return {"fits": None, "fit": "not known"}
    try:
        if stock is None or stock.is_wanting:
            found = expected_misfit(entry, memory)
        else:
            model = open_model(folder.path, entry.name, {entry.name: stock.files[0].path})
            found = misfit(entry.name, model, memory)
    except (HordelibError, OSError):
        return {"fits": None, "fit": "can't be read"}
    told = "yes" if found is None else f"no, needs {found.needed_bytes / (1 << 30):.1f} GiB"
    return {"fits": found is None, "fit": told}
