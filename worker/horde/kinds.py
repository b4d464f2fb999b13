"""The horde's kinds of work: each has workers, endpoints and rows of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Generic, TypeVar

from worker.config.keys import BridgeConfig

Task = TypeVar("Task")


class Kind(StrEnum):
    """As the ledger spells it. A worker's name at the horde is of one kind alone."""

    image = "image"
    form = "form"
    text = "text"

    @property
    def worker_type(self) -> str:
        """What the horde calls such a worker (`type` of its page)."""
        return _TYPES[self]

    @property
    def name_key(self) -> str:
        """The key of bridgeData.yaml that names the worker of this kind."""
        return _NAME_KEYS[self]

    @property
    def served_by(self) -> str:
        """What a worker of this kind is called."""
        return self.name_key.removesuffix("_name")

    def in_its_keys(self, remedy: str) -> str:
        """A remedy that names keys of the worker of pictures, in those of this kind."""
        told = remedy.replace(_NAME_KEYS[Kind.image], self.name_key)
        return told.replace(_OFFER_KEYS[Kind.image], _OFFER_KEYS[self])


_TYPES = {Kind.image: "image", Kind.form: "interrogation", Kind.text: "text"}
_NAME_KEYS = {
    Kind.image: "dreamer_name",
    Kind.form: "alchemist_name",
    Kind.text: "scribe_name",
}
_OFFER_KEYS = {Kind.image: "models_to_load", Kind.form: "forms", Kind.text: "text_model"}


def names_of(config: BridgeConfig) -> Mapping[Kind, str]:
    """Under which names which kinds are served; the first is what is meant by "the worker"."""
    served = {
        Kind.image: config.dreamer_name if config.makes_pictures else None,
        Kind.form: None if config.scribe_only else config.alchemist_name,
        Kind.text: config.scribe_name,
    }
    return {kind: name for kind, name in served.items() if name is not None}


@dataclass(frozen=True, slots=True)
class PoppedTasks(Generic[Task]):
    """`unusable` are ids that were handed out with something that can't be read, and why."""

    tasks: tuple[Task, ...]
    unusable: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)
