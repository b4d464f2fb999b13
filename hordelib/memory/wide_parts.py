"""Which files gave no numbers in 16 bits, so that a try in them is left out for a while.

Not for good: it may have been one job's doing. Each time that 16 bits don't do again, twice as many
tries are left out, and when they do, nothing is remembered any more.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from hordelib.files.model_key import FileStamp, ModelKey

FEWEST, MOST = 4, 64  # tries that are left out
KEPT = 100  # combinations of files

File = tuple[ModelKey, FileStamp]  # another one where its content is
Files = frozenset[File]


@dataclass(slots=True)
class _Wide:
    left_out: int  # tries that are to be left out from now on
    next: int = 2 * FEWEST  # as many after the next one that fails


class WideParts:
    """For the engine's thread. Files are remembered together, as they computed."""

    def __init__(self) -> None:
        self._known: OrderedDict[Files, _Wide] = OrderedDict()

    def are_wide(self, files: Files) -> bool:
        """Whether some of these will compute in 32 bits at once."""
        return any(each <= files and wide.left_out > 0 for each, wide in self._known.items())

    def leave_out(self, files: Files) -> bool:
        """Whether to leave out the try in 16 bits that is about to be made with these."""
        wide = self._known.get(files)
        if wide is None or not wide.left_out:
            return False
        wide.left_out -= 1
        return True

    def tried(self, files: Files, *, is_enough: bool) -> None:
        """Whether 16 bits have done."""
        if is_enough:
            self._known.pop(files, None)
        elif (wide := self._known.get(files)) is not None:
            wide.left_out, wide.next = wide.next, min(2 * wide.next, MOST)
        else:
            self._known[files] = _Wide(FEWEST)
            if len(self._known) > KEPT:
                self._known.popitem(last=False)


class RunPrecision:
    """One run's: knows the networks by the files that they were read from.

    `was_wide`: some of it computed in 32 bits instead of 16, so that what the run took of memory
    and time says nothing of others.
    """

    def __init__(self, parts: WideParts, files: Mapping[int, File]):
        self._parts = parts
        self._files = files  # by the network's id()
        self.was_wide = False

    def leaves_out(self, networks: Iterable[Any]) -> bool:
        """Whether these compute in 32 bits without a try in 16 before."""
        is_left_out = self._parts.leave_out(self._files_of(networks))
        self.was_wide |= is_left_out
        return is_left_out

    def tried(self, networks: Iterable[Any], *, is_enough: bool) -> None:
        self.was_wide |= not is_enough
        if files := self._files_of(networks):
            self._parts.tried(files, is_enough=is_enough)

    def _files_of(self, networks: Iterable[Any]) -> Files:
        """None at all where one of them is unknown."""
        files = [self._files.get(id(network)) for network in networks]
        return frozenset(each for each in files if each is not None) if all(files) else frozenset()


PRECISION: ContextVar[RunPrecision] = ContextVar("precision")


def precision_of_the_run() -> RunPrecision:
    """Outside of a run, one that remembers nothing."""
    return PRECISION.get(None) or RunPrecision(WideParts(), {})
