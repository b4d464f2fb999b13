"""The models that are offered at this moment, and whose jobs are done."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from hordelib.errors import AuxiliaryBroken
from hordelib.files.model import Model
from worker.horde.api import Offer
from worker.models.changes import Stamps, describe_change, stamps_of
from worker.models.files.broken_files import BrokenFiles

MakeOffer = Callable[[Mapping[str, Model], frozenset[Path]], Offer]

log = logging.getLogger(__name__)

FLAGS = (
    "allow_controlnet",
    "allow_extended_controlnet",
    "allow_sdxl_controlnet",
    "allow_post_processing",
)


class OfferedModels:
    """Any thread may call.

    Args:
        make_offer: what models can do together, without files that are broken.
        models: by the horde's names.
        wishes: another object where the owner wants something else to be offered.

    `is_watched` says that somebody brings models back whose files are whole again.
    """

    is_watched = False

    def __init__(
        self,
        make_offer: MakeOffer,
        models: Mapping[str, Model],
        wishes: Callable[[], object] = lambda: None,
    ):
        self._make_offer = make_offer
        self._wishes = wishes
        self._wished = wishes()  # when the offer was made
        self._broken = BrokenFiles()
        self._without: frozenset[Path] = frozenset()  # what was broken when the offer was made
        self._offer = make_offer(models, self._without)
        self._models = models
        self._stamps: dict[str, Stamps] = {n: stamps_of(model) for n, model in models.items()}
        self._resting: frozenset[str] = frozenset()
        self._withdrawn: Mapping[str, str] = {}
        self._changing = threading.Lock()

    @property
    def models(self) -> Mapping[str, Model]:
        """Those whose jobs are done, by their names; some of them may rest."""
        return self._models

    @property
    def withdrawn(self) -> Mapping[str, str]:
        """Those that were and are not any more, each with the reason."""
        return self._withdrawn

    def offer(self) -> Offer:
        """What to say at the next pop: of the models that neither rest nor were withdrawn."""
        is_mended = self._broken.paths != self._without
        if is_mended or self._wishes() is not self._wished:
            with self._changing:
                self._make()
        return replace(self._offer, models=tuple(n for n in self._models if n not in self._resting))

    def add(self, model: Model) -> None:
        """Offer a model more, or again."""
        with self._changing:
            self._resting -= {model.name}
            self._put(model)

    def restore(self, model: Model) -> None:
        """Bring a model back that was withdrawn; one that rested before rests."""
        with self._changing:
            self._put(model)

    def _put(self, model: Model) -> None:
        self._stamps[model.name] = stamps_of(model)
        self._models = {**self._models, model.name: model}
        self._withdrawn = {n: why for n, why in self._withdrawn.items() if n != model.name}
        self._make()

    def _make(self) -> None:
        """To be called after each change: what may be offered depends on all that is."""
        self._without, self._wished = self._broken.paths, self._wishes()
        models = {name: model for name, model in self._models.items() if name not in self._resting}
        self._offer = self._make_offer(models, self._without)

    def do_without(self, broken: AuxiliaryBroken) -> None:
        """Ask for no job that may need the file, until it is another one, and tell the owner."""
        with self._changing:
            before = self._offer
            self._broken.add(broken.path, str(broken))
            self._make()
            lost = [
                flag for flag in FLAGS if getattr(before, flag) and not getattr(self._offer, flag)
            ]
        kinds = f"{', '.join(lost)} is not offered" if lost else "no job that needs it is made"
        log.error("%s; until it is mended, %s", broken, kinds)

    def insist_on_usable(self, files: Iterable[Path]) -> None:
        """Raises AuxiliaryBroken for the first of them that `do_without` was told of."""
        for path in files:
            if why := self._broken.why(path):
                raise AuxiliaryBroken(path, why)

    def are_usable(self, files: Iterable[Path]) -> bool:
        """Whether `do_without` was told of none of them."""
        return not any(map(self._broken.why, files))

    def rest(self, name: str) -> None:
        """Offer a model no more, but do the jobs of it that were popped. One is always offered."""
        with self._changing:
            if self._models.keys() - self._resting - {name}:
                self._resting |= {name}
                self._make()

    def changed(self, name: str) -> str:
        """What became of the model's files since it was added, one line; "": nothing."""
        return describe_change(self._stamps.get(name, {}))

    def withdraw(self, name: str, reason: str) -> bool:
        """Offer a model no more, nor do its jobs, and tell the owner; whether any is left."""
        with self._changing:
            if name in self._models:
                log.error("%s is not offered any more: %s", name, reason)
                self._withdrawn = {**self._withdrawn, name: reason}
            self._models = {each: model for each, model in self._models.items() if each != name}
            if not self._models.keys() - self._resting:
                self._resting = frozenset()
            self._make()
            return bool(self._models)
