"""Brings the files of models onto the disk, and sees that they are what the reference names.

In the background, a few at a time; each model is told as soon as it is whole.
"""

from __future__ import annotations

import logging
import math
import queue
import shutil
import threading
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from hordelib.errors import DownloadFailed, DownloadRefused, ModelBroken
from hordelib.files.content_hash import content_hash
from hordelib.files.headers import verify_checkpoint
from hordelib.files.whole_files import PART, size_on_disk
from hordelib.job.control_weights import may_have_size
from worker.backoff import Backoff
from worker.models.checksums import VerifiedFiles
from worker.models.on_disk import (
    DISK_FLOOR_BYTES,
    FileStock,
    State,
    Stock,
    size_text,
    state_by_size,
)
from worker.models.reference import ReferenceFile
from worker.net.downloads import Download, Downloader
from worker.net.fetch import Web
from worker.net.refusal_memo import DownloadMemo

log = logging.getLogger(__name__)

AT_ONCE = 2
RETRY_SECONDS, MOST_RETRY_SECONDS = 60.0, 3600.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it went with a model: whole and verified, or the `problem`, one line with its name."""

    stock: Stock
    problem: str = ""


class FileFetcher:
    """Puts files of the reference where they belong. Any thread may use it."""

    def __init__(self, web: Web, memo: DownloadMemo, verified: VerifiedFiles):
        self._downloader = Downloader(web)
        self._asker = "a token" if web.has_token else "no token"
        self._memo = memo
        self._verified = verified

    def complete(self, stock: Stock) -> None:
        """On return every file is there, with the content that the reference names.

        What is there already is read once, and not again until it changes. Raises ModelBroken for
        a file that is another one, DownloadRefused for a last word (which is remembered),
        DownloadFailed for what may pass, and OSError.
        """
        for file in stock.files:
            if file.path.is_file():
                self._insist(stock, file)
            else:
                self._fetch(file)

    def _insist(self, stock: Stock, file: FileStock) -> None:
        if file.about.by_size:
            if state_by_size(file.path, file.about) is State.other:
                raise ModelBroken(other_file(stock, file))
            return
        wanted = file.about.checksum
        try:
            found = self._verified.found(file.path, of_tensors=wanted.of_tensors)
        except OSError as error:
            raise ModelBroken(f"{file.path}: {error.strerror}") from error
        if found != wanted.value:
            raise ModelBroken(other_file(stock, file, found))

    def _fetch(self, file: FileStock) -> None:
        about, wanted = file.about, file.about.checksum
        key = f"{about.url} {wanted.value[:12]}, {self._asker}"  # what an answer depends on
        self._memo.raise_if_refused(key)
        try:
            self._downloader.fetch(
                Download(
                    url=about.url,
                    target=file.path,
                    sha256=about.sha256,
                    insist=_insistence(about),
                    room_bytes=_room_bytes(file.path),
                ),
                deadline=math.inf,
            )
        except DownloadRefused as refused:
            self._memo.remember_refusal(key, refused)
            raise
        if wanted.value:
            self._verified.remember(file.path, wanted)


def _insistence(about: ReferenceFile) -> Callable[[Path], None] | None:
    """What is asked of a download that no sha256 tells anything of."""
    if about.by_size:
        return partial(_insist_by_size, about)
    return partial(_insist_on_tensors, about) if about.checksum.of_tensors else None


def _insist_on_tensors(about: ReferenceFile, path: Path) -> None:
    """Raises ModelBroken where what was downloaded has other tensors, or is no model."""
    found = content_hash(path)
    if found != about.content_hash:
        raise ModelBroken(
            f"its tensors have the content hash {found[:12]}, not {about.content_hash[:12]}"
        )


def _insist_by_size(about: ReferenceFile, path: Path) -> None:
    """Raises ModelBroken where what was downloaded has another size, or is no model."""
    size_bytes = size_on_disk(path)
    if not may_have_size(size_bytes, about.size_bytes):
        told = f"has {size_text(size_bytes)}, not about {size_text(about.size_bytes)}"
        raise ModelBroken(f"{about.path.name}: {told}")
    verify_checkpoint(path)


def other_file(stock: Stock, file: FileStock, found: str = "") -> str:
    """What to tell of a file that is there and is not the reference's."""
    seen = f" ({found[:12]} instead of {file.about.checksum.value[:12]})" if found else ""
    return (
        f"{stock.name}: {file.path} is damaged, or another file than the reference names{seen}; "
        f'models remove "{stock.name}" makes way for it, or name yours in custom_models'
    )


class ModelSupply:
    """Completes models, `at_once` together, in the order given.

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
        self._waiting = [
            _Turn(stock, Backoff(retry_seconds, MOST_RETRY_SECONDS)) for stock in stocks
        ]
        self._fetcher = fetcher
        self._keeps_trying = keeps_trying
        self._at_once = at_once
        self._lock = threading.Lock()
        self._told: queue.Queue[Outcome] = queue.Queue()
        self._left = len(self._waiting)
        self._has_begun = False

    def outcomes(self, poll_seconds: float = 1.0) -> Generator[Outcome | None]:
        """How it went with each model, as it ends; None now and then while nothing does.

        Those that an earlier call has told are not told again. Threads work on after the caller
        has lost interest, and end with the process: what they have of a file is continued the next
        time.
        """
        self._begin()
        while self._left:
            try:
                outcome = self._told.get(timeout=poll_seconds)
            except queue.Empty:
                yield None
                continue
            self._left -= 1
            yield outcome

    def _begin(self) -> None:
        if not self._has_begun:
            self._has_begun = True
            for number in range(min(self._at_once, self._left)):
                threading.Thread(target=self._work, name=f"supply-{number}", daemon=True).start()

    def _work(self) -> None:
        while (turn := self._next()) is not None:
            time.sleep(max(turn.due - time.monotonic(), 0.0))
            outcome = self._try(turn)
            if outcome is not None:
                self._told.put(outcome)

    def _next(self) -> _Turn | None:
        """The turn that is due first; of several, the one that came first."""
        with self._lock:
            if not self._waiting:
                return None
            turn = min(self._waiting, key=lambda each: each.due)
            self._waiting.remove(turn)
            return turn

    def _try(self, turn: _Turn) -> Outcome | None:
        """How it went; None where it has another turn later."""
        name = turn.stock.name
        try:
            self._fetcher.complete(turn.stock)
        except DownloadFailed as error:
            if isinstance(error, DownloadRefused) or not self._keeps_trying:
                return Outcome(turn.stock, f"{name}: {error}")
            pause_seconds = turn.backoff.delay()
            log.warning("%s: %s; next try in %.0f s", name, error, pause_seconds)
            turn.due = time.monotonic() + pause_seconds
            with self._lock:
                self._waiting.append(turn)
            return None
        except ModelBroken as error:
            return Outcome(turn.stock, str(error))
        except OSError as error:
            return Outcome(turn.stock, f"{name}: {error}")
        except Exception as error:  # the others still have their turns
            log.exception("a bug of ours ended the download of %s", name)
            return Outcome(turn.stock, f"{name}: internal error: {error}")
        return Outcome(turn.stock)


@dataclass(eq=False, slots=True)
class _Turn:
    """A model that waits; `due` is of time.monotonic()."""

    stock: Stock
    backoff: Backoff
    due: float = 0.0


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


def _room_bytes(path: Path) -> int:
    """The largest file that leaves the disk its reserve, what has come of it included."""
    path.parent.mkdir(parents=True, exist_ok=True)
    free_bytes = shutil.disk_usage(path.parent).free
    part_bytes = size_on_disk(path.with_name(path.name + PART))
    return max(free_bytes + part_bytes - DISK_FLOOR_BYTES, 0)
