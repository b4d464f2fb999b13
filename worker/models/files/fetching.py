"""Brings the files of a model onto the disk, and sees that they are what the reference names."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from hordelib.errors import DownloadRefused, ModelBroken
from hordelib.files.content_hash import content_hash
from hordelib.files.headers import verify_checkpoint
from hordelib.files.whole_files import PART, size_on_disk
from hordelib.job.control_weights import may_have_size
from worker.command_line import LAUNCHER
from worker.models.files.checksums import VerifiedFiles
from worker.models.files.on_disk import (
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


class FileFetcher:
    """Puts files of the reference where they belong. Any thread may use it."""

    def __init__(self, web: Web, memo: DownloadMemo, verified: VerifiedFiles):
        self._downloader = Downloader(web)
        self._asker = "a token" if web.has_token else "no token"
        self._memo = memo
        self._verified = verified

    def complete(self, stock: Stock, is_wanted: Callable[[], bool] = lambda: True) -> None:
        """On return every file is there, with the content that the reference names.

        What is there already is read once, and not again until it changes. Raises ModelBroken for
        a file that is another one, DownloadRefused for a last word (which is remembered),
        DownloadStopped where it is not wanted any more, DownloadFailed for what may pass, and
        OSError.
        """
        for file in stock.files:
            if file.path.is_file():
                self._insist(stock, file)
            else:
                self._fetch(file, is_wanted)

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

    def _fetch(self, file: FileStock, is_wanted: Callable[[], bool]) -> None:
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
                    is_wanted=is_wanted,
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
        f'{LAUNCHER} models remove "{stock.name}" makes way for it, or name yours in custom_models'
    )


def _room_bytes(path: Path) -> int:
    """The largest file that leaves the disk its reserve, what has come of it included."""
    path.parent.mkdir(parents=True, exist_ok=True)
    free_bytes = shutil.disk_usage(path.parent).free
    part_bytes = size_on_disk(path.with_name(path.name + PART))
    return max(free_bytes + part_bytes - DISK_FLOOR_BYTES, 0)
