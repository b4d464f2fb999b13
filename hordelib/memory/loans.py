"""Models that are lent to the device for a job, and given back."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Generator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol, Self

from hordelib.files.model_key import ModelKey
from hordelib.memory.cache import Held, ModelCache

if TYPE_CHECKING:
    from hordelib.memory.parts import LoadedPart


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


FRESH_SECONDS = 0.1


class DeviceLoans:
    """Has the cache bring to the device what ComfyUI is about to compute with.

    A text encoder, the UNet and a VAE follow each other, so that a card need not hold them all at
    once. What ComfyUI does not ask for again may be evicted, though the job still holds it in main
    memory. Models that the cache does not know are left to ComfyUI.

    Args:
        held: what the graph's loaders give.
        working_bytes: what computing with a part takes now, beside the weights.
        cache: what they are held by.
        restart: gives what computing took at most since it was asked before.
    """

    def __init__(
        self,
        held: Mapping[ModelKey, Held[LoadedPart]],
        working_bytes: Callable[[ModelKey], int],
        cache: ModelCache[LoadedPart],
        restart: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
    ):
        self.measured: dict[ModelKey, int] = {}  # bytes that computing took, by what was on loan
        self._restart = restart
        self._patched_bytes = 0  # what LoRAs take of what is on loan
        self._lent: Collection[ModelKey] = ()
        self._cache = cache
        self._promised_bytes = 0
        self._held = held
        self._working_bytes = working_bytes
        self._keys = {
            id(each.model): key
            for key, each_held in held.items()
            for each in each_held.part.patchers
        }
        self._stack = ExitStack()
        self._clock = clock
        self._asked_at, self._spare_bytes = -math.inf, 0
        self._is_moving = False

    def bring(self, patchers: Collection[Any]) -> None:
        """Lend the models of these patchers, or of clones of them, and nothing else from now on.

        Raises OutOfMemory where there is no room even with every idle model gone.
        """
        self._return()
        known = {self._keys.get(id(patcher.model)): patcher for patcher in patchers}
        keys = [key for key in self._held if key in known]
        for key in keys:
            self._held[key].part.make_way(known[key])
        keys.sort(key=lambda key: self._held[key].part.missing_bytes)  # what is there stays there
        for key in keys:
            patched_bytes = self._held[key].part.patching_bytes(known[key])
            working_bytes = self._working_bytes(key) + patched_bytes
            self._stack.enter_context(self._held[key].lend(working_bytes=working_bytes))
            self._promised_bytes += working_bytes
            self._patched_bytes += patched_bytes
        self._lent = keys
        self._asked_at = -math.inf

    def spare_bytes(self) -> int:
        """What computing may take, with what it was promised, as it was a moment ago at most.

        ComfyUI asks in each step of a sampler.
        """
        now = self._clock()
        if self._is_moving or now - self._asked_at > FRESH_SECONDS:
            self._asked_at, self._spare_bytes = now, self._cache.spare_bytes()
        return self._spare_bytes + self._promised_bytes

    def make_room(self, size_bytes: int) -> None:
        """Have `spare_bytes` give so much, as far as idle parts can go from a card.

        ComfyUI would copy them to main memory.
        """
        self._cache.make_room(size_bytes - self._promised_bytes)

    def forget_peak(self) -> None:
        self._restart()

    @contextmanager
    def undisturbed(self) -> Generator[None]:
        """A read ahead moves nothing until the block ends: ComfyUI's lists know of one thread.

        ComfyUI moves models meanwhile, so what was spare a moment ago says nothing.
        """
        was_moving, self._is_moving = self._is_moving, True
        try:
            with self._cache.undisturbed():
                yield
        finally:
            self._is_moving, self._asked_at = was_moving, -math.inf

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._return()

    @property
    def measured_bytes(self) -> int:
        """What computing took at most."""
        return max(self.measured.values(), default=0)

    def _return(self) -> None:
        """Nothing is on loan any more; what was took so much beside the weights."""
        taken_bytes = max(0, self._restart() - self._patched_bytes)
        for key in self._lent:
            self.measured[key] = max(taken_bytes, self.measured.get(key, 0))
        self._stack.close()
        self._lent, self._promised_bytes, self._patched_bytes = (), 0, 0
