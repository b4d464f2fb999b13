"""Models on their way to the disk: a few at a time, paused and cancelled as their owner likes.

Each is told as soon as it is whole.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Generator, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum

from hordelib.errors import DownloadFailed, DownloadRefused, DownloadStopped, ModelBroken
from hordelib.files.whole_files import PART, size_on_disk
from worker.backoff import Backoff
from worker.models.files.fetching import FileFetcher
from worker.models.files.on_disk import Stock, size_text

log = logging.getLogger(__name__)

AT_ONCE = 2
RETRY_SECONDS, MOST_RETRY_SECONDS = 60.0, 3600.0
MOST_TOLD = 20  # models that have come, or failed


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it went with a model: whole and verified, or the `problem`, one line with its name."""

    stock: Stock
    problem: str = ""


class Progress(StrEnum):
    """How far a model is on its way to the disk."""

    waiting = "waiting"
    coming = "coming"
    paused = "paused"
    over = "over"


@dataclass(eq=False, slots=True)
class Fetching:
    """A model on its way. `problem` is how it ended, or what keeps it from going on for now."""

    stock: Stock
    backoff: Backoff
    progress: Progress = Progress.waiting
    problem: str = ""
    due: float = 0.0  # of time.monotonic()
    is_wanted: bool = True  # not while it is paused, nor once it is cancelled
    is_cancelled: bool = False

    def leaves(self) -> Outcome | None:
        """Stop where it is, now that nobody works at it; how it ended, if it has."""
        self.progress = Progress.over if self.is_cancelled else Progress.paused
        if not self.is_cancelled:
            return None
        self.problem = f"{self.stock.name}: its download was cancelled"
        return Outcome(self.stock, self.problem)


class ModelSupply:
    """Completes models, `at_once` together, in the order given. Any thread may use it.

    With `keeps_trying`, what may pass is tried again after longer and longer pauses, in which the
    others have their turns.
    """

    def __init__(
        self,
        stocks: Iterable[Stock],
        fetcher: FileFetcher,
        *,
        keeps_trying: bool = False,
        at_once: int = AT_ONCE,
        retry_seconds: float = RETRY_SECONDS,
    ):
        self._fetcher = fetcher
        self._keeps_trying = keeps_trying
        self._at_once = at_once
        self._retry_seconds = retry_seconds
        self._changed = threading.Condition()
        self._told: queue.Queue[Outcome] = queue.Queue()
        self._fetchings: list[Fetching] = []
        self._left = 0
        self._threads = 0
        self._has_begun = False
        for stock in stocks:
            self.add(stock)

    def outcomes(
        self, poll_seconds: float = 1.0, *, ends: bool = True
    ) -> Generator[Outcome | None]:
        """How it went with each model, as it ends; None now and then while nothing does.

        Those that an earlier call has told are not told again. Threads work on after the caller
        has lost interest, and end with the process: what they have of a file is continued the next
        time. With `ends` False it goes on for those that are added later.
        """
        with self._changed:
            self._has_begun = True
            self._employ()
        while self._left or not ends:
            try:
                outcome = self._told.get(timeout=poll_seconds)
            except queue.Empty:
                yield None
                continue
            with self._changed:
                self._left -= 1
            yield outcome

    # ---- what the owner does -----------------------------------------------------------------

    @property
    def fetchings(self) -> Sequence[Fetching]:
        """All that are on their way, and the last that were, in the order in which they came."""
        with self._changed:
            return tuple(self._fetchings)

    def add(self, stock: Stock) -> bool:
        """Let a model come too; whether it was not on its way already."""
        with self._changed:
            if self._going(stock.name):
                return False
            over = [each for each in self._fetchings if each.progress is Progress.over]
            gone = [*over[: max(len(over) - MOST_TOLD, 0)]]
            gone += [each for each in over if each.stock.name == stock.name]
            backoff = Backoff(self._retry_seconds, MOST_RETRY_SECONDS)
            kept = [each for each in self._fetchings if each not in gone]
            self._fetchings = [*kept, Fetching(stock, backoff)]
            self._left += 1
            self._employ()
        return True

    def pause(self, name: str) -> bool:
        """What has come of it stays until `resume`; whether it was on its way."""
        with self._changed:
            going = self._going(name)
            if going is None or going.is_cancelled:
                return False
            going.is_wanted = False
            if going.progress is Progress.waiting:
                going.leaves()
        return True

    def resume(self, name: str) -> bool:
        with self._changed:
            going = self._going(name)
            if going is None or going.is_cancelled:
                return False
            going.is_wanted, going.due, going.problem = True, 0.0, ""
            if going.progress is Progress.paused:
                going.progress = Progress.waiting
                self._employ()
        return True

    def cancel(self, name: str) -> bool:
        """Deletes what has come of it, as soon as nobody writes it; whether it was on its way."""
        with self._changed:
            going = self._going(name)
            if going is None:
                return False
            going.is_wanted, going.is_cancelled = False, True
            outcome = None if going.progress is Progress.coming else going.leaves()
        if outcome is not None:
            self._tell(going, outcome)
        return True

    def complain(self, name: str, problem: str) -> None:
        """What came is of no use."""
        with self._changed:
            for each in self._fetchings:
                if each.stock.name == name:
                    each.problem = problem

    def _going(self, name: str) -> Fetching | None:
        going = (each for each in self._fetchings if each.progress is not Progress.over)
        return next((each for each in going if each.stock.name == name), None)

    # ---- the threads -------------------------------------------------------------------------

    def _employ(self) -> None:
        """As many threads as there is work for. To be called with the lock held."""
        if not self._has_begun:
            return
        waiting = sum(each.progress is Progress.waiting for each in self._fetchings)
        for _ in range(min(self._at_once - self._threads, waiting)):
            self._threads += 1
            threading.Thread(target=self._work, name="supply", daemon=True).start()
        self._changed.notify_all()

    def _work(self) -> None:
        while (going := self._next()) is not None:
            outcome = self._try(going)
            with self._changed:
                outcome = self._noted(going, outcome)
            if outcome is not None:
                self._tell(going, outcome)

    def _next(self) -> Fetching | None:
        """The one that is due first, once it is; of several, the one that came first."""
        with self._changed:
            while True:
                waiting = [each for each in self._fetchings if each.progress is Progress.waiting]
                if not waiting:
                    self._threads -= 1
                    return None
                going = min(waiting, key=lambda each: each.due)
                seconds = going.due - time.monotonic()
                if seconds <= 0:
                    going.progress, going.problem = Progress.coming, ""
                    return going
                self._changed.wait(seconds)

    def _try(self, going: Fetching) -> Outcome | None:
        """How it went; None where it has another turn later."""
        name = going.stock.name
        try:
            self._fetcher.complete(going.stock, lambda: going.is_wanted)
        except DownloadStopped:
            return None
        except DownloadFailed as error:
            if isinstance(error, DownloadRefused) or not self._keeps_trying:
                return Outcome(going.stock, f"{name}: {error}")
            pause_seconds = going.backoff.delay()
            log.warning("%s: %s; next try in %.0f s", name, error, pause_seconds)
            going.due, going.problem = time.monotonic() + pause_seconds, f"{name}: {error}"
            return None
        except ModelBroken as error:
            return Outcome(going.stock, str(error))
        except OSError as error:
            return Outcome(going.stock, f"{name}: {error}")
        except Exception as error:  # the others still have their turns
            log.exception("a bug of ours ended the download of %s", name)
            return Outcome(going.stock, f"{name}: internal error: {error}")
        return Outcome(going.stock)

    def _noted(self, going: Fetching, outcome: Outcome | None) -> Outcome | None:
        if outcome is not None and not (outcome.problem and going.is_cancelled):
            going.progress, going.problem = Progress.over, outcome.problem
            return outcome
        if not going.is_wanted:
            return going.leaves()
        going.progress = Progress.waiting
        return None

    def _tell(self, going: Fetching, outcome: Outcome) -> None:
        if going.is_cancelled and outcome.problem:
            self._delete_parts(going.stock)
        self._told.put(outcome)

    def _delete_parts(self, stock: Stock) -> None:
        """But for those of files that others are waiting for, too."""
        with self._changed:
            others = [each for each in self._fetchings if each.progress is not Progress.over]
        needed = {file.path for other in others for file in other.stock.files}
        for file in stock.files:
            if file.path not in needed:
                with suppress(OSError):
                    file.path.with_name(file.path.name + PART).unlink(missing_ok=True)


def arrived_bytes(stocks: Sequence[Stock]) -> int:
    """How much of the models' files is on disk now, begun ones included."""
    paths = [file.path for stock in stocks for file in stock.files]
    return sum(
        size_on_disk(path) or size_on_disk(path.with_name(path.name + PART)) for path in paths
    )


def progress_text(stocks: Sequence[Stock]) -> str:
    """How far the downloads of these models are, for people."""
    total_bytes = sum(stock.entry.size_bytes for stock in stocks)
    told = size_text(arrived_bytes(stocks))
    return f"{told} of {size_text(total_bytes)}" if total_bytes else told
