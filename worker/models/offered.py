"""The models that are offered at this moment, and whose jobs are done."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from dataclasses import replace

from hordelib.files.model import Model
from worker.horde.api import Offer
from worker.models.changes import Stamps, stamps_of, what_changed

log = logging.getLogger(__name__)


class OfferedModels:
    """Any thread may call.

    Args:
        offer: all but the models, which are those that neither rest nor were withdrawn.
        models: by the horde's names.

    `is_watched` says that somebody brings models back whose files are whole again.
    """

    is_watched = False

    def __init__(self, offer: Offer, models: Mapping[str, Model]):
        self._offer = offer
        self._models = models
        self._stamps: dict[str, Stamps] = {n: stamps_of(model) for n, model in models.items()}
        self._resting: frozenset[str] = frozenset()
        self._changing = threading.Lock()

    @property
    def models(self) -> Mapping[str, Model]:
        """Those whose jobs are done, by their names; some of them may rest."""
        return self._models

    def offer(self) -> Offer:
        """What to say at the next pop."""
        return replace(self._offer, models=tuple(n for n in self._models if n not in self._resting))

    def add(self, model: Model, offer: Offer) -> None:
        """Offer a model more, or again. `offer` is what all of them can do together."""
        with self._changing:
            self._put(model, offer)
            self._resting -= {model.name}

    def restore(self, model: Model, offer: Offer) -> None:
        """Bring a model back that was withdrawn; one that rested before rests."""
        with self._changing:
            self._put(model, offer)

    def _put(self, model: Model, offer: Offer) -> None:
        self._stamps[model.name] = stamps_of(model)
        self._models = {**self._models, model.name: model}
        self._offer = offer

    def rest(self, name: str) -> None:
        """Offer a model no more, but do the jobs of it that were popped. One is always offered."""
        with self._changing:
            if self._models.keys() - self._resting - {name}:
                self._resting |= {name}

    def changed(self, name: str) -> str:
        """What became of the model's files since it was added, one line; "": nothing."""
        return what_changed(self._stamps.get(name, {}))

    def withdraw(self, name: str, reason: str) -> bool:
        """Offer a model no more, nor do its jobs, and tell the owner; whether any is left."""
        with self._changing:
            if name in self._models:
                log.error("%s is not offered any more: %s", name, reason)
            self._models = {each: model for each, model in self._models.items() if each != name}
            if not self._models.keys() - self._resting:
                self._resting = frozenset()
            return bool(self._models)
