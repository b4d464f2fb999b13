"""Who brings models to the device while a graph runs, and how nodes ask for it."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import Any, Protocol


class Lender(Protocol):
    """Who brings models to the device while a graph runs."""

    def bring(self, patchers: Collection[Any]) -> None:
        """ComfyUI is about to compute with these alone."""
        ...

    def undisturbed(self) -> AbstractContextManager[None]:
        """Nobody else moves models until the block ends."""
        ...

    def make_room(self, size_bytes: int) -> None:
        """Have so many spare bytes, as far as what nobody computes with can go from the device."""
        ...

    def spare_bytes(self) -> int:
        """What computing may take of the device beside them."""
        ...

    def forget_peak(self) -> None:
        """What was computed until now does not say what it takes: there was no room for it."""
        ...


LENDER: ContextVar[Lender | None] = ContextVar("lender", default=None)


def lend(model: Any) -> None:
    """Have what is not ComfyUI's own on loan from now on, with what its computing takes.

    Without a lender, nothing. Raises OutOfMemory.
    """
    if (lender := LENDER.get()) is not None:
        lender.bring([model])


def forget_peak() -> None:
    """Have nothing learnt of what has just run out of memory. Without a lender, nothing."""
    if (lender := LENDER.get()) is not None:
        lender.forget_peak()
