"""The weights that ControlNet's annotators need, downloaded and verified."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from hordelib.control_types import CONTROL_TYPES, Weights
from worker.downloads import Download, Downloader

MOST_BYTES = 2 << 30  # of one file; the largest has 0.5 GB


def all_weights() -> tuple[Weights, ...]:
    """Every file that some control type's annotator needs, each once."""
    rows = (row.weights for row in CONTROL_TYPES.values())
    return tuple(dict.fromkeys(weights for weights in rows if weights is not None))


def fetch_missing(
    folder: Path, wanted: Iterable[Weights], downloader: Downloader, tell: Callable[[str], None]
) -> None:
    """Download what is not there; what was begun before is continued.

    Raises DownloadFailed, naming the file, where one can't be had or is not what it should be.
    """
    for weights in wanted:
        target = folder / weights.file
        if target.is_file():
            tell(f"{weights.file}: is there")
            continue
        tell(f"{weights.file}: downloading from {weights.url}")
        downloader.fetch(
            Download(url=weights.url, target=target, sha256=weights.sha256, most_bytes=MOST_BYTES),
            deadline=math.inf,
        )


def damaged(folder: Path, wanted: Iterable[Weights]) -> Iterator[Weights]:
    """Those whose file is there and is another one than it should be; reads every byte."""
    for weights in wanted:
        path = folder / weights.file
        if path.is_file() and _sha256(path) != weights.sha256:
            yield weights


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
