"""The horde's kinds of work: each has workers, endpoints and rows of its own."""

from __future__ import annotations

from enum import StrEnum


class Kind(StrEnum):
    """As the ledger spells it. A worker's name at the horde is of one kind alone."""

    image = "image"
    form = "form"

    @property
    def worker_type(self) -> str:
        """What the horde calls such a worker (`type` of its page)."""
        return _TYPES[self]

    @property
    def name_key(self) -> str:
        """The key of bridgeData.yaml that names the worker of this kind."""
        return _NAME_KEYS[self]


_TYPES = {Kind.image: "image", Kind.form: "interrogation"}
_NAME_KEYS = {Kind.image: "dreamer_name", Kind.form: "alchemist_name"}
