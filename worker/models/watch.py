"""Notices that the files of models change: those that go bad, and those that are whole again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from hordelib.errors import JobError
from hordelib.files.model import Model
from worker.models.changes import Stamps, stamps_of
from worker.models.offered import OfferedModels

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Watched:
    """A model that was offered: what its files were when they were opened, and at the last look."""

    model: Model
    opened: Stamps
    seen: Stamps

    @classmethod
    def of(cls, model: Model) -> _Watched:
        now = stamps_of(model)
        return cls(model, now, now)

    def is_to_be_opened(self) -> bool:
        """Whether its files are others, and have stayed so since the last look: not half copied."""
        before, self.seen = self.seen, stamps_of(self.model)
        return self.seen == before != self.opened


class ModelWatch:
    """Looks at the files of every model that is offered, and that was. For one thread.

    Args:
        reopen: gives the model of that name with what is on disk now, verified; raises JobError
            and OSError where it is not whole.
    """

    def __init__(self, offered: OfferedModels, reopen: Callable[[str], Model]):
        self._offered = offered
        self._reopen = reopen
        self._known = {name: _Watched.of(model) for name, model in offered.models.items()}

    def look(self) -> Iterator[Model]:
        """Withdraw what has changed; the models that can be offered again."""
        for name, model in self._offered.models.items():
            self._known.setdefault(name, _Watched.of(model))
            if trouble := self._offered.changed(name):
                self._offered.withdraw(name, trouble)
        for name, watched in self._known.items():
            if name not in self._offered.models and watched.is_to_be_opened():
                yield from self._opened(watched)

    def _opened(self, watched: _Watched) -> Iterator[Model]:
        """The model, unless its files change while they are verified."""
        watched.opened = watched.seen
        try:
            model = self._reopen(watched.model.name)
        except (JobError, OSError) as error:
            log.debug("%s is not whole: %s", watched.model.name, error)
            return
        if stamps_of(model) == watched.seen:
            watched.model = model
            yield model
