"""Keeps the offer up with the models: those that arrive, go bad, and that the horde waits for."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager

from hordelib.errors import JobError, ModelMissing
from hordelib.files.model import Model
from worker.errors import DocumentMissing
from worker.models.files.on_disk import State, Stock
from worker.models.files.supply import ModelSupply, Outcome, Progress, progress_text
from worker.models.inventory import Inventory, comfyui_folder, dynamic_names
from worker.models.offered import OfferedModels
from worker.models.opening import Models, find_models, insist_on_comfyui, open_model
from worker.models.reference import Kind
from worker.models.sites import Reference
from worker.models.watch import ModelWatch

log = logging.getLogger(__name__)

WATCH_SECONDS = 1.0  # between two looks at the files of what is offered
DYNAMIC_SECONDS = 600.0  # between two looks at the horde's queues
PROGRESS_SECONDS = 60.0
TROUBLE_SECONDS = 60.0  # until a thread goes on after something unforeseen


class ModelOffering:
    """The models of a configuration, from what is there at the start to all of them."""

    def __init__(self, inventory: Inventory, *, dynamic_seconds: float = DYNAMIC_SECONDS):
        self._inventory = inventory
        self._folder = inventory.folder
        self._fetcher = self._folder.fetcher()
        self._dynamic_seconds = dynamic_seconds
        self._stopping = threading.Event()
        self._brought = set(inventory.dynamic)
        self._supply = ModelSupply(self._inventory.coming, self._fetcher, keeps_trying=True)
        self._told_at = time.monotonic()
        self._offered: OfferedModels | None = None
        self._hoped_for: dict[str, Callable[[str], None]] = {}

    @property
    def is_awaited(self) -> bool:
        """Whether a model of the start is still to come."""
        return bool(self._inventory.coming)

    @property
    def supply(self) -> ModelSupply:
        """What comes, which the owner may pause, cancel and add to."""
        return self._supply

    @property
    def served(self) -> Mapping[str, Model]:
        """The models whose jobs are done at this moment; none before there is an offer."""
        return self._offered.models if self._offered else {}

    def add(self, stock: Stock, then: Callable[[str], None]) -> bool:
        """Let a model come too, and offer it; `then` is called with its name where that worked.

        Whether it was not on its way already.
        """
        self._hoped_for[stock.name] = then
        return self._supply.add(stock)

    def rest(self, name: str) -> None:
        """Offer it no more; jobs of it that were popped are done. One model is always offered."""
        if self._offered:
            self._offered.rest(name)

    def withdraw(self, name: str, reason: str) -> None:
        """It is about to go."""
        if self._offered and name in self._offered.models:
            self._offered.withdraw(name, reason)

    def first_models(self, is_wanted: Callable[[], bool] = lambda: True) -> Models:
        """What can be served now; where that is nothing, the first model that arrives.

        Nothing where that is not wanted any more: `is_wanted` is asked about once a second. Raises
        DocumentMissing where there is nothing, and a list that could not be had may change that.
        """
        for note in self._inventory.notes:
            log.warning("%s", note)
        if self._inventory.plan.fetched:
            log.info("models: %s", self._inventory.plan.summary)
        models = find_models(self._folder.config, self._folder.home, self._inventory)
        if models.served:
            return models
        if not self._inventory.coming:
            if self._inventory.missing:
                why = "; ".join((*self._inventory.missing, *models.problems))
                raise DocumentMissing(f"no model can be served yet: {why}")
            return models
        return self._first_arrival(models, is_wanted)

    @contextmanager
    def kept_up(self, offered: OfferedModels) -> Generator[None]:
        """Within, what arrives is offered, and what the horde's queues choose.

        What goes bad is not, until its files are whole again.

        Downloads under way end with the process, and go on the next time.
        """
        self._offered = offered
        offered.is_watched, watch = True, ModelWatch(offered, self._reopen)
        threading.Thread(target=self._offer_arrivals, args=(offered,), daemon=True).start()
        threading.Thread(target=self._watch_files, args=(watch, offered), daemon=True).start()
        if self._folder.config.serves_dynamically:
            threading.Thread(target=self._follow_queues, args=(offered,), daemon=True).start()
        try:
            yield
        finally:
            self._stopping.set()

    def _first_arrival(self, models: Models, is_wanted: Callable[[], bool]) -> Models:
        log.info("no model is there and verified yet: serving starts with the first one")
        failed: list[str] = []
        for outcome in self._supply.outcomes():
            try:
                model = self._arrived(outcome)
            except JobError as error:
                failed.append(str(error))
                continue
            if model is not None:
                return Models({model.name: model}, (*models.problems, *failed))
            if not is_wanted():
                break
        return Models({}, (*models.problems, *failed))

    def _offer_arrivals(self, offered: OfferedModels) -> None:
        for outcome in self._supply.outcomes(PROGRESS_SECONDS, ends=False):
            if self._stopping.is_set():
                return
            with self._surviving("models that arrive"):
                self._offer_arrived(outcome, offered)

    def _offer_arrived(self, outcome: Outcome | None, offered: OfferedModels) -> None:
        try:
            model = self._arrived(outcome)
        except JobError as error:
            log.warning("%s", error)
            return
        if model is not None:
            self._offer(model, offered)

    @contextmanager
    def _surviving(self, what: str) -> Generator[None]:
        """A thread outlives what was wrong for a moment; it is told, and goes on after a pause."""
        try:
            yield
        except Exception:
            log.exception("%s: looking again in %.0f s", what, TROUBLE_SECONDS)
            self._stopping.wait(TROUBLE_SECONDS)

    def _arrived(self, outcome: Outcome | None) -> Model | None:
        """The model that came; None where time passed. Raises JobError where it did not come."""
        if outcome is None:
            self._tell_progress()
            return None
        name = outcome.stock.name
        then = self._hoped_for.pop(name, None)
        try:
            if outcome.problem:
                raise ModelMissing(outcome.problem)
            model = self._open(outcome.stock)
        except JobError as error:
            self._supply.complain(name, str(error))
            raise
        if then is not None:
            then(name)
        return model

    def _tell_progress(self) -> None:
        fetchings = self._supply.fetchings
        is_due = time.monotonic() - self._told_at >= PROGRESS_SECONDS
        if is_due and any(each.progress is not Progress.over for each in fetchings):
            self._told_at = time.monotonic()
            log.info("models: %s", progress_text([each.stock for each in fetchings]))

    def _open(self, stock: Stock) -> Model:
        files = {stock.name: stock.files[0].path}
        model = open_model(self._folder.path, stock.name, files)
        insist_on_comfyui(model, comfyui_folder(self._folder.config, self._folder.home))
        return model

    def _offer(self, model: Model, offered: OfferedModels, *, again: bool = False) -> None:
        put = offered.restore if again else offered.add
        put(model)
        log.info("offering %s %s", model.name, "again" if again else "too")

    # ---- files that change -----------------------------------------------------------------

    def _watch_files(self, watch: ModelWatch, offered: OfferedModels) -> None:
        while not self._stopping.wait(WATCH_SECONDS):
            with self._surviving("files of models"):
                for model in watch.look():
                    self._offer(model, offered, again=True)

    def _reopen(self, name: str) -> Model:
        """The model, with what is on disk now. Raises JobError and OSError; downloads nothing."""
        entry, files = self._inventory.reference.entries.get(name), self._inventory.files
        if entry is not None and name not in self._folder.customs:
            stock = self._folder.look(entry)
            files = {**files, name: stock.files[0].path}
            if stock.is_wanting:
                raise ModelMissing(f"{name}: its files are not all there")
            if stock.state is not State.unlisted:
                self._fetcher.complete(stock)
        return open_model(self._folder.path, name, files)

    # ---- the horde's queues ----------------------------------------------------------------

    def _follow_queues(self, offered: OfferedModels) -> None:
        held: Sequence[str] = self._inventory.dynamic
        while not self._stopping.wait(self._dynamic_seconds):
            with self._surviving("the horde's queues"):
                held = self.follow(held, offered)

    def follow(self, held: Sequence[str], offered: OfferedModels) -> Sequence[str]:
        """Offer the models that the queues choose now in place of `held`; those that it became."""
        reference = self._folder.reference([Kind.model])
        fixed = [name for name in self._inventory.names if name not in self._inventory.dynamic]
        try:
            chosen = dynamic_names(self._folder, reference, fixed, held)
        except DocumentMissing as error:
            log.warning("dynamic_models: %s", error)
            return held
        came = [name for name in chosen if name in held or self._bring(name, reference, offered)]
        for name in held:
            if name not in chosen:
                log.info("offering %s no more: others wait longer", name)
                offered.rest(name)
        return came

    def _bring(self, name: str, reference: Reference, offered: OfferedModels) -> bool:
        """Offer a model, downloaded where it is missing; whether it is offered now."""
        if name in self._brought and name not in offered.models:
            return False  # it was withdrawn: the engine can't use its file
        stock = self._folder.look(reference.entries[name])
        try:
            self._fetcher.complete(stock)
            self._offer(self._open(stock), offered)
        except (JobError, OSError) as error:
            log.warning("dynamic_models: %s: %s", name, error)
            return False
        self._brought.add(name)
        return True
